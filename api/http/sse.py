"""A run's events as a Server-Sent Events response: a reader of the run's log, and nothing more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import structlog
from litestar.response import ServerSentEvent
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from api.http.guard import direct_send
from api.replay import Batches
from pipeline.ports import BATCH

log = structlog.get_logger()

Notice = Callable[[str], object]
"""Is called with the run's id."""
Permission = Callable[[], bool]

FIRST_BEAT_S = 1.0
"""Some proxies give up a stream that is silent from its beginning."""
WRITE_DEADLINE_S = 30.0
"""A reader whose socket takes nothing for so long is given up."""


def _unnoticed(_run_id: str) -> None:
    """Tell nobody."""


class EventStream(ServerSentEvent):
    """Streams a run's events to one reader.

    Litestar's own loop costs a thread hop a stream and a string builder an event; this one takes all frames that are
    ready and writes them at once, just as they lie in the log.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__(content=iter(()), status_code=200, headers={"Cache-Control": "no-cache"})
        self._reader = reader

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIStreamingResponse:
        """Return Litestar's response, its body written by our reader."""
        made = super().to_asgi_response(*args, **kwargs)
        return _EventStreamASGI(
            iterator=iter(()),
            headers=dict(made.headers),
            media_type="text/event-stream",
            status_code=200,
            background=made.background,
            is_head_response=made.is_head_response,
            reader=self._reader,
        )


class _EventStreamASGI(ASGIStreamingResponse):
    __slots__ = ("_reader", "_send")

    def __init__(self, *, reader: Reader, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; its body past what only looks at the beginning, for each token would go through it."""
        self._send = direct_send(scope)
        await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:  # noqa: ARG002  # see above
        await self._reader.write_all(self._send, receive)


class Reader:
    """One reader of one run, or job: writes to its socket, notices that it left, keeps its connection alive.

    It begins behind event ``after``. ``joined`` and ``left`` are called when it comes and goes; ``permitted`` is asked
    now and then: a reader whose key is taken away is cut.
    """

    def __init__(
        self,
        source: Batches,
        run_id: str,
        *,
        after: int,
        heartbeat_s: float,
        permitted: Permission,
        joined: Notice = _unnoticed,
        left: Notice = _unnoticed,
    ) -> None:
        self._source = source
        self._run_id = run_id
        self._after = after
        self._heartbeat_s = heartbeat_s
        self._joined = joined
        self._left = left
        self._permitted = permitted
        self._writing_since: float | None = None
        self._last_write = 0.0

    async def write_all(self, send: Send, receive: Receive) -> None:
        """Write until the run's end, until the reader leaves, or until it has taken nothing for too long."""
        self._joined(self._run_id)
        self._last_write = time.monotonic()
        write = asyncio.ensure_future(self._write(send))
        watch = {asyncio.ensure_future(task) for task in (gone(receive), self._beat(send), self._given_up())}
        try:
            await asyncio.wait({write, *watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._left(self._run_id)
            for task in (write, *watch):
                task.cancel()
            await asyncio.gather(write, *watch, return_exceptions=True)
        if not write.cancelled() and (broken := write.exception()):
            log.error("reader.failed", run_id=self._run_id, exc_info=broken)

    async def _write(self, send: Send) -> None:
        async with aclosing(self._source.read(self._run_id, self._after)) as batches:
            async for frames in batches:
                await self._put(send, frames[0] if len(frames) == 1 else b"".join(frames))
                if len(frames) == BATCH:
                    await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _put(self, send: Send, body: bytes) -> None:
        self._last_write = self._writing_since = time.monotonic()
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._writing_since = None

    async def _beat(self, send: Send) -> None:
        """Send a comment whenever nothing else was sent for a while."""
        wait_s = min(FIRST_BEAT_S, self._heartbeat_s)
        while True:
            left_s = self._last_write + wait_s - time.monotonic()
            if left_s > 0:
                await asyncio.sleep(left_s)
            elif self._writing_since is not None:
                await asyncio.sleep(self._heartbeat_s)
            else:
                await self._put(send, b": \n\n")
                wait_s = self._heartbeat_s

    async def _given_up(self) -> None:
        """Return when a write has hung for too long, or the reader may read no more.

        Looks now and then, so that no timer is armed per write.
        """
        since = None
        while self._permitted() and (since is None or time.monotonic() - since < WRITE_DEADLINE_S):
            await asyncio.sleep(WRITE_DEADLINE_S / 10)
            since = self._writing_since


async def gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
