"""How long a stage waited for its turn: for a thread, or for a connection to the database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class QueueTime:
    """Adds up the waits of one stage, in ms; waits side by side count each."""

    __slots__ = ("waited_ms",)

    def __init__(self) -> None:
        self.waited_ms = 0.0


_stage: ContextVar[QueueTime | None] = ContextVar("queue_time", default=None)


def begin() -> QueueTime:
    """Begin anew for what this task does from now on, the tasks that it starts included."""
    made = QueueTime()
    _stage.set(made)
    return made


@contextmanager
def queueing() -> Iterator[None]:
    """Count the time within as waiting."""
    begun = time.monotonic()
    try:
        yield
    finally:
        if (stage := _stage.get()) is not None:
            stage.waited_ms += (time.monotonic() - begun) * 1000
