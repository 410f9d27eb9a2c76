"""Where a run's events can be read when they are not on the bus any more, and why they may not be."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from pipeline.errors import StagecastError
from pipeline.events import Error, Failure
from pipeline.ports import BATCH
from pipeline.wire import WallClock, frame

REMEMBERED = 10_000
"""Readers of lost runs that are known to have been told; one that is forgotten is told again."""


class Batches(Protocol):
    """Where what a client is sent can be read."""

    def read(self, run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the frames behind number ``after``, in batches."""
        ...


class Readable(Batches, Protocol):
    """Where a run's events can be read: the bus, or what was stored."""

    async def frames(self, run_id: str) -> list[bytes] | None:
        """Return the frames so far; None when they are lost."""
        ...


class Stored:
    """The events of a finished run, to be read as from the bus."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = frames

    async def frames(self, _run_id: str) -> list[bytes]:
        """Return all frames."""
        return self._frames

    async def read(self, _run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the frames behind number ``after``, in batches."""
        for start in range(after, len(self._frames), BATCH):
            yield self._frames[start : start + BATCH]


class Lost:
    """A run whose process was lost, and its events with it: whatever a reader has seen, the error comes next."""

    def __init__(self, failure: Failure, told: set[tuple[str, int]]) -> None:
        self._failure = failure
        self._told = told
        """Runs and the numbers under which readers were told: who comes back with one of those has seen all."""

    async def frames(self, _run_id: str) -> list[bytes] | None:
        """Return that it is not known which there were."""
        return None

    async def read(self, run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the error as the event behind number ``after``."""
        if (run_id, after) in self._told:
            return
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told.add((run_id, after + 1))
        yield [frame(after + 1, Error(self._failure), WallClock().now())]


class Expired(StagecastError):
    """The run's events are not kept any more."""


class Elsewhere(StagecastError):
    """Another server is answering the run; its events are not to be had here before it has ended."""


class BeyondTheEnd(StagecastError):
    """A reader says that it has seen an event that the run does not have."""

    def __init__(self, count: int) -> None:
        super().__init__(f"the run has {count} events so far")
