"""Lets plugins be written with plain functions: they run in the thread pool and look async from outside."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import closing
from typing import Any

from pipeline.threads import Threads

_END = object()
AHEAD = 256
"""Items that a plain generator may be ahead of its reader."""
LOOK_S = 0.5
"""How often a generator that is far ahead looks whether its reader has left."""


class Threaded:
    """A plugin whose plain ``calls`` and ``streams`` run in threads; all else is the plugin's own."""

    def __init__(self, plugin: object, threads: Threads, calls: Iterable[str], streams: Iterable[str]) -> None:
        self._plugin = plugin
        self._threads = threads
        for name in calls:
            setattr(self, name, self._call(getattr(plugin, name)))
        for name in streams:
            setattr(self, name, self._stream(getattr(plugin, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plugin, name)

    def _call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            return await self._threads.run(function, *args)

        return call

    def _stream(self, function: Callable[..., Any]) -> Callable[..., AsyncGenerator[Any]]:
        async def stream(*args: Any) -> AsyncGenerator[Any]:
            items: asyncio.Queue[Any] = asyncio.Queue()
            left, places = threading.Event(), threading.Semaphore(AHEAD)
            loop = asyncio.get_running_loop()

            def put(item: Any) -> bool:
                while not left.is_set():
                    if places.acquire(timeout=LOOK_S):
                        loop.call_soon_threadsafe(items.put_nowait, item)
                        return True
                return False

            pump = asyncio.ensure_future(self._threads.run(_pump, function(*args), put))
            pump.add_done_callback(lambda _: items.put_nowait(_END))
            try:
                while (item := await items.get()) is not _END:
                    places.release()
                    yield item
                await pump
            finally:
                left.set()
                pump.cancel()

        return stream


def _pump(generator: Any, put: Callable[[Any], bool]) -> None:
    """Run a plain generator to its end, or until ``put`` says that its reader has left."""
    with closing(generator):
        for item in generator:
            if not put(item):
                return


def as_async(plugin: object, threads: Threads, calls: Iterable[str], streams: Iterable[str]) -> object:
    """Return the plugin itself, or a :class:`Threaded` one when some of its functions are plain."""
    plain_calls = [name for name in calls if not inspect.iscoroutinefunction(getattr(plugin, name))]
    plain_streams = [name for name in streams if inspect.isgeneratorfunction(getattr(plugin, name))]
    if not plain_calls and not plain_streams:
        return plugin
    return Threaded(plugin, threads, plain_calls, plain_streams)
