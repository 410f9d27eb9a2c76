"""Who calls: every route but those marked ``PUBLIC`` asks for a key where keys are needed, and is its owner's alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from litestar.middleware import ASGIMiddleware
from litestar.middleware.rate_limit import RateLimitConfig, RateLimitMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from api.access import Access
from api.http.problems import AnyRequest, not_ready, refuse

PUBLIC: dict[str, Any] = {"public": True}
"""Passed to a route that needs no key."""
RATED: dict[str, Any] = {"rated": True}
"""Passed to a route that costs a search, an answer or an ingestion."""

MAX_KEY_CHARS = 512


class Caller(msgspec.Struct, frozen=True):
    """Whose sessions, runs and documents a request is about."""

    owner: str
    """Empty where callers need no key."""
    still_permitted: Callable[[], bool]
    """Whether the key that was shown is good even now."""


def caller(request: AnyRequest) -> Caller:
    """Return who calls; fails on a public route, where nobody was asked."""
    found: Caller = request.scope["user"]
    return found


class Authenticate(ASGIMiddleware):
    """Lets a request through that shows a good key, or any while none are needed."""

    exclude_opt_key = "public"

    def __init__(self, access: Access) -> None:
        self._access = access

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Find out who calls."""
        if self._access.required:
            scope["user"] = await self._caller(scope)
        elif self._access.known:
            scope["user"] = Caller("", lambda: not self._access.required)
        else:
            raise not_ready("the keys are not read yet")
        await next_app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(shown) != 1:
            raise _unauthorized("one header Authorization: Bearer <key> is needed")
        scheme, _, key = shown[0].decode("latin-1").partition(" ")
        if scheme.lower() != "bearer" or not 1 <= len(key) <= MAX_KEY_CHARS:
            raise _unauthorized("the header Authorization is not of the form Bearer <key>")
        owner = await self._access.owner_of(key)
        if owner is None:
            raise _unauthorized("the key is not known, or is not valid any more")
        return Caller(owner, partial(self._access.still_opens, key))


def _unauthorized(detail: str) -> Exception:
    return refuse(401, f"Authorization: {detail}.", headers={"WWW-Authenticate": "Bearer"})


def rate_limit(per_minute: int) -> ASGIMiddleware | Any:
    """Return the middleware that lets each caller ask so often a minute."""

    def rated(request: AnyRequest) -> bool:
        return bool(request.route_handler.opt.get("rated"))

    return RateLimitConfig(
        rate_limit=("minute", per_minute),
        identifier_for_request=lambda request: caller(request).owner,
        check_throttle_handler=rated,
        middleware_class=RateLimitMiddleware,
    ).middleware
