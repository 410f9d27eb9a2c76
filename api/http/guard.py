"""The outermost layer: headers that every answer has, and requests that are no client's of ours."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection
from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.access import Access

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
NO_STORE = (b"cache-control", b"no-store")
BODY_DEADLINE_S = 30.0
"""For the whole of a request's body: who drips it holds a connection, but not for ever."""
UPLOAD_DEADLINE_S = 600.0
"""The same for uploads: 200 MB, as much as is taken by default, come through a line of 3 Mbit/s."""
UPLOADS = ("POST", "/documents")
"""The route is not known here yet."""


DIRECT = "stagecast.send"


def direct_send(scope: Scope) -> Send:
    """Return what sends to the client past all layers: for the body of a response whose start went through them."""
    send: Send = scope[DIRECT]  # type: ignore[literal-required]  # a place of ours
    return send


class Guard:
    """Wraps the application, errors and unknown addresses included.

    While no keys are needed, a request must name this machine, not a domain: a page of another site that lets its own
    name point to 127.0.0.1 could otherwise read what is here. ``hosts`` are further names that are ours.
    """

    def __init__(self, app: ASGIApp, access: Access, hosts: Collection[str]) -> None:
        self._app = app
        self._access = access
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(list(message.get("headers", ())))
            await send(message)

        scope[DIRECT] = send  # type: ignore[literal-required]  # a place of ours
        if self._access.required or self._is_ours(_host(scope)):
            await self._app(scope, _PatientReceive(receive, _deadline_s(scope)), send_with_headers)
        else:
            await _refuse(send_with_headers)

    def _is_ours(self, host: str) -> bool:
        name = host.removeprefix("[").partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return ("." not in name and ":" not in name) or name in self._hosts or _is_loopback(name)


class _PatientReceive:
    """Passes on what a client sends; one that stops within its body counts as gone after a while."""

    def __init__(self, receive: Receive, deadline_s: float) -> None:
        self._receive = receive
        self._whole = False
        self._deadline = asyncio.get_running_loop().time() + deadline_s

    async def __call__(self) -> Any:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._whole = not message.get("more_body", False)
        return message


def _completed(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    cached = any(name.lower() == NO_STORE[0] for name, _ in headers)
    return [*headers, *HEADERS] if cached else [*headers, *HEADERS, NO_STORE]


def _deadline_s(scope: Scope) -> float:
    asked = (scope.get("method"), scope["path"].rstrip("/"))
    return UPLOAD_DEADLINE_S if asked == UPLOADS else BODY_DEADLINE_S


def _host(scope: Scope) -> str:
    return next((value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"), "")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.endswith(".localhost")


async def _refuse(send: Send) -> None:
    problem = {
        "type": "about:blank",
        "title": "Misdirected Request",
        "status": 421,
        "detail": "Host: without keys the server answers to this machine's own names only; further ones are listed in "
        "STAGECAST_ALLOWED_HOSTS.",
    }
    body = msgspec.json.encode(problem)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
