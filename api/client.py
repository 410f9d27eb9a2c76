"""A client in Python: an answer's events as they come, each once and in order, however often the connection breaks.

    async with Client("http://localhost:8000") as client, aclosing(client.ask("What is aripiprazole?")) as events:
        async for number, event in events:
            ...

An event is one of :data:`~pipeline.events.WIRE_EVENTS`, or :class:`Unknown` when it is of a stage of a plugin's.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Self

import httpx
import httpx_sse
import msgspec

from pipeline.errors import StagecastError
from pipeline.events import TERMINAL, WIRE_EVENTS, Event, RunStart, type_of
from pipeline.ports import Filters

WAITS_S = (0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0)
"""Before each attempt to come back; a run goes on for 30 s without a reader."""
SILENCE_S = 30.0
"""The server lets no stream be silent for as long as this."""
CANCEL_S = 5.0
PASSING = {429, 502, 503, 504}
"""Statuses of a server that is busy or restarts, and of a proxy before it."""
EVENTS = "text/event-stream"
KINDS: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in WIRE_EVENTS}


class Refused(StagecastError):
    """The server refused the request; the message says why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the server refuses with status {status}: {detail}")
        self.status = status


class Unreachable(StagecastError):
    """The server could not be reached, or not again in time."""


class Unknown(msgspec.Struct, frozen=True):
    """An event of a type that this client does not know."""

    type: str
    content: Any


Numbered = tuple[int, Event | Unknown]
"""An event, and its number within its run."""


class _Type(msgspec.Struct):
    type: str


def decoded(data: bytes | str) -> Event | Unknown:
    """Return the event in the ``data`` of a Server-Sent Event."""
    kind = KINDS.get(msgspec.json.decode(data, type=_Type).type)
    return msgspec.json.decode(data, type=kind) if kind else msgspec.json.decode(data, type=Unknown)


class Client:
    """Asks one server; ``key`` is one of its API keys, where it needs one."""

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(10, read=SILENCE_S),
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(
        self, message: str, *, session_id: str | None = None, filters: Filters | None = None
    ) -> AsyncGenerator[Numbered]:
        """Yield the numbered events of the answer to a question, until the last; closed before that, it stops the run.

        A question that is given up before its first event may have begun, and is answered until its grace period ends.

        Raises:
            Refused: The question was not accepted.
            Unreachable: There is no server, or it did not come back in time.
        """
        body = {"message": message, "session_id": session_id, "filters": filters or {}}
        wanted = {name: value for name, value in body.items() if value is not None}
        # A question whose answer is lost on the way is sent again, and must not be asked twice.
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        begin = self._http.build_request(
            "POST", "/chat", json=wanted | {"stream": True, "on_disconnect": "continue"}, headers=headers
        )
        run_id, ended = None, False
        try:
            async with aclosing(self._followed(begin)) as events:
                async for number, event in events:
                    run_id = event.content.run_id if isinstance(event, RunStart) else run_id
                    ended = isinstance(event, TERMINAL)
                    yield number, event
        finally:
            if run_id and not ended:
                await asyncio.shield(self._cancel(run_id))

    async def watch(self, run_id: str, after: int = 0) -> AsyncGenerator[Numbered]:
        """Yield the numbered events of a run behind number ``after``, also of one that has ended; raises as ``ask``."""
        async with aclosing(self._followed(self._again(run_id, after), run_id, after)) as events:
            async for found in events:
                yield found

    async def _followed(
        self, begin: httpx.Request, run_id: str | None = None, seen: int = 0
    ) -> AsyncGenerator[Numbered]:
        attempt = 0
        while True:
            try:
                async with self._opened(self._again(run_id, seen) if run_id else begin) as response:
                    if response.status_code == HTTPStatus.NO_CONTENT:
                        return
                    async for sent in httpx_sse.EventSource(response).aiter_sse():
                        attempt, seen, event = 0, int(sent.id), decoded(sent.data)
                        run_id = event.content.run_id if isinstance(event, RunStart) else run_id
                        yield seen, event
                        if isinstance(event, TERMINAL):
                            return
                problem: Exception = Unreachable("the stream broke off")
            except Refused as refused:
                if run_id is None or refused.status not in PASSING:
                    raise
                problem = refused
            except httpx.TransportError as broken:
                problem = broken
            nobody = run_id is None and isinstance(problem, httpx.ConnectError | httpx.ConnectTimeout)
            if attempt == len(WAITS_S) or nobody:
                raise Unreachable(f"the server at {self._http.base_url} cannot be reached") from problem
            await asyncio.sleep(WAITS_S[attempt])
            attempt += 1

    @asynccontextmanager
    async def _opened(self, request: httpx.Request) -> AsyncGenerator[httpx.Response]:
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
                raise Refused(response.status_code, _detail(response))
            if (
                response.status_code == HTTPStatus.OK
                and response.headers.get("content-type", "").partition(";")[0] != EVENTS
            ):
                raise Refused(response.status_code, "it is no stream of events, so this is no such server")
            if response.is_redirect:
                raise Refused(response.status_code, f"it is at {response.headers.get('location')}")
            yield response
        finally:
            await response.aclose()

    def _again(self, run_id: str, after: int) -> httpx.Request:
        return self._http.build_request("GET", f"/runs/{run_id}/events", headers={"Last-Event-ID": str(after)})

    async def _cancel(self, run_id: str) -> None:
        # A server that cannot be reached stops the run by itself, having no reader.
        with suppress(httpx.TransportError, TimeoutError):
            async with asyncio.timeout(CANCEL_S):
                await self._http.post(f"/runs/{run_id}/cancel")


def _detail(response: httpx.Response) -> str:
    try:
        problem: Mapping[str, Any] = response.json()
        return str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def kind_of(event: Event | Unknown) -> str:
    """Return an event's ``type`` as it stands on the wire."""
    return event.type if isinstance(event, Unknown) else type_of(event)
