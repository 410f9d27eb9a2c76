"""The bounded thread pool for whatever would block the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from pipeline.errors import Overloaded
from pipeline.queueing import queueing

P = ParamSpec("P")
R = TypeVar("R")


NAME = "stagecast"
"""Begins the name of each thread."""
MAX_WAITING = 2000
"""Twice as many as questions that are answered at once by default; more would wait for many seconds."""
ABANDONED = 60
"""Threads that may go on for callers that have left, beside those that are waited for."""


class Threads:
    """Runs blocking functions beside the loop, at most ``size`` at once; more wait in line.

    A cancelled caller goes on at once: a call in line is dropped, one under way ends by itself, its result is thrown
    away, and it takes no place in line, so that calls that hang do not stop the others.
    """

    def __init__(self, size: int) -> None:
        self._places = asyncio.Semaphore(size)
        self._waiting = 0
        self._pool = ThreadPoolExecutor(size + ABANDONED, thread_name_prefix=NAME)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return ``function(*args, **kwargs)``; its exceptions are raised here.

        Raises:
            Overloaded: ``MAX_WAITING`` calls are in line already.
        """
        await self._turn()
        try:
            return await asyncio.wrap_future(self._pool.submit(_guarded(function), *args, **kwargs))
        finally:
            self._places.release()

    async def _turn(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            with queueing():
                await self._places.acquire()
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Take no more calls and do not wait for those under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def still_at_work() -> bool:
    """Say whether a thread of a closed pool goes on; the interpreter would wait for it before it exits."""
    return any(thread.name.startswith(f"{NAME}_") for thread in threading.enumerate())


def _guarded(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function without its StopIteration: a future that is given one never ends."""

    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except StopIteration as stopped:
            raise RuntimeError("a function in a thread raised StopIteration") from stopped

    return guarded
