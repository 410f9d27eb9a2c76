"""The event bus of a single process: a log per run, readers with a cursor each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from pipeline.errors import UnknownRun
from pipeline.events import Event, Tokens
from pipeline.host import Host
from pipeline.ports import BATCH
from pipeline.wire import WallClock, frame, token_frames

PROMPT_TOKENS = 4
"""Of each answer so many are told at once in any case: the wait for the first is what people notice."""


class RunLog:
    """The frames of one run, and the readers that wait for the next."""

    __slots__ = ("_loop", "closed", "frames", "tokens", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.frames: list[bytes] = []
        self.tokens = 0
        self.closed = False
        self.waiting: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Tell every waiting reader that there is news."""
        if self.waiting:
            waiting, self.waiting = self.waiting, []
            for reader in waiting:
                if not reader.done():
                    reader.set_result(None)

    def news(self) -> asyncio.Future[None]:
        """Return what the next :meth:`wake` ends."""
        reader: asyncio.Future[None] = self._loop.create_future()
        self.waiting.append(reader)
        return reader

    def leave(self, reader: asyncio.Future[None]) -> None:
        """Forget a reader that has left."""
        if reader in self.waiting:
            self.waiting.remove(reader)


class MemoryBus:
    """Keeps the :class:`~pipeline.ports.EventBus` port with a list per run.

    A forgotten log can be read for ``linger_s`` more. With ``flush_s`` readers are told of tokens so long after the
    first that they do not know, all at once: fewer and larger writes, for as much delay. Whatever else happens is told
    at once, and so are the first ``PROMPT_TOKENS`` of an answer.
    """

    def __init__(self, linger_s: float = 10.0, flush_s: float = 0.0) -> None:
        self._linger_s = linger_s
        self._flush_s = flush_s
        self._logs: dict[str, RunLog] = {}
        self._clock = WallClock()
        self._untold: set[RunLog] = set()

    def open(self, run_id: str) -> None:
        """Begin the log of a run."""
        self._logs[run_id] = RunLog(asyncio.get_running_loop())

    def publish(self, run_id: str, event: Event) -> int:
        """Number, stamp, encode and append the event, or each of several tokens, then wake the readers."""
        log = self._log(run_id)
        if log.closed:
            raise UnknownRun(run_id)
        number = len(log.frames) + 1
        if type(event) is Tokens:
            made = token_frames(number, event.content, self._clock.now())
            log.tokens += len(made)
            later = self._flush_s and log.tokens > PROMPT_TOKENS
        else:
            made, later = [frame(number, event, self._clock.now())], False
        log.frames += made
        if later:
            self._wake_later(log)
        else:
            log.wake()
        return sum(map(len, made))

    def _wake_later(self, log: RunLog) -> None:
        """Have one timer for all runs, however many have news."""
        if not self._untold:
            asyncio.get_running_loop().call_later(self._flush_s, self._wake_all)
        self._untold.add(log)

    def _wake_all(self) -> None:
        untold, self._untold = self._untold, set()
        for log in untold:
            log.wake()

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
                news = log.news()
                try:
                    await news
                except asyncio.CancelledError:
                    log.leave(news)
                    raise

    def _log(self, run_id: str) -> RunLog:
        try:
            return self._logs[run_id]
        except KeyError:
            raise UnknownRun(run_id) from None


def memory_bus(host: Host) -> MemoryBus:
    """Make the bus named ``memory``."""
    return MemoryBus(flush_s=host.options.flush_ms / 1000)
