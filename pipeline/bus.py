"""The event bus of a single process: a log per run, readers with a cursor each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pipeline.errors import UnknownRun
from pipeline.events import Event, Tokens
from pipeline.host import Host
from pipeline.ports import BATCH
from pipeline.wire import WallClock, frame, token_frames


class RunLog:
    """The frames of one run, and the readers that wait for the next."""

    __slots__ = ("closed", "frames", "waiting")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = False
        self.waiting: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Tell every waiting reader that there is news."""
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for reader in waiting:
                if not reader.done():
                    reader.set_result(None)

    async def news(self) -> None:
        """Return at the next :meth:`wake`."""
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(reader)
        try:
            await reader
        finally:
            if reader.cancelled() and reader in self.waiting:
                self.waiting.remove(reader)


class MemoryBus:
    """Keeps the :class:`~pipeline.ports.EventBus` port with a list per run.

    A forgotten log can be read for ``linger_s`` more.
    """

    def __init__(self, linger_s: float = 10.0) -> None:
        self._linger_s = linger_s
        self._logs: dict[str, RunLog] = {}
        self._clock = WallClock()

    def open(self, run_id: str) -> None:
        """Begin the log of a run."""
        self._logs[run_id] = RunLog()

    def publish(self, run_id: str, event: Event) -> int:
        """Number, stamp, encode and append the event, or each of several tokens, then wake the readers."""
        log = self._log(run_id)
        if log.closed:
            raise UnknownRun(run_id)
        number = len(log.frames) + 1
        if type(event) is Tokens:
            made = token_frames(number, event.content, self._clock.now())
        else:
            made = [frame(number, event, self._clock.now())]
        log.frames += made
        log.wake()
        return sum(map(len, made))

    def last_frame(self, run_id: str, event: Event) -> bytes:
        """Number, stamp and encode the event, and keep it back."""
        return frame(len(self._log(run_id).frames) + 1, event, self._clock.now())

    def close(self, run_id: str, last: bytes) -> None:
        """Append the last frame."""
        log = self._log(run_id)
        if log.closed:
            raise UnknownRun(run_id)
        log.frames.append(last)
        log.closed = True
        log.wake()

    def forget(self, run_id: str) -> None:
        """Let the log go after a while: readers that are on their way here may still come."""
        asyncio.get_running_loop().call_later(self._linger_s, self._logs.pop, run_id, None)

    async def frames(self, run_id: str) -> list[bytes]:
        """Return a copy of the log."""
        return list(self._log(run_id).frames)

    async def read(self, run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the frames behind number ``after``, at most 64 at once; end after the terminal event."""
        log = self._log(run_id)
        cursor = after
        while True:
            batch = log.frames[cursor : cursor + BATCH]
            if batch:
                cursor += len(batch)
                yield batch
            elif log.closed:
                return
            else:
                await log.news()

    def _log(self, run_id: str) -> RunLog:
        try:
            return self._logs[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None


def memory_bus(host: Host) -> MemoryBus:  # noqa: ARG001  # every plugin is made with the host
    """Make the bus named ``memory``."""
    return MemoryBus()
