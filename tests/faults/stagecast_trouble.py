"""A stage that makes trouble when the question asks for it, and tells what is open in its process.

``trouble:<mode>`` in a question chooses what it does; without one it yields nothing. What is open is told as one JSON
object to whoever connects to the Unix socket that ``TROUBLE_PROBE`` names.
"""

import asyncio
import ctypes
import gc
import json
import os
import re
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.events import Completed, Token, stage_events

MODE = re.compile(r"trouble:([a-z_]+)")
Start, Complete = stage_events("trouble")


class Trouble:
    def __init__(self, host):
        self._engine = host.service(AsyncEngine)
        self._threads = host.threads

    async def warm(self):
        if path := os.environ.get("TROUBLE_PROBE"):
            self._probe = await asyncio.start_unix_server(self._tell, path)

    async def run(self, run):
        if asked := MODE.search(run.question):
            yield Start()
            async for event in getattr(self, f"_{asked[1]}")():
                yield event
            yield Complete()

    async def _raise(self):
        yield await failing(ValueError("canary of a plugin"))

    async def _exit(self):
        yield await failing(SystemExit(3))

    async def _leak(self):
        yield await failing(asyncio.CancelledError())

    async def _garbage(self):
        yield {"type": "token"}

    async def _hang(self):
        yield await asyncio.Event().wait()

    async def _deaf(self):
        """Sleeps for a while whoever cancels it."""
        until = time.monotonic() + 2
        while (left := until - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        yield Token("late")

    async def _thread(self):
        await self._threads.run(time.sleep, 3)
        yield Token("late")

    async def _thread_forever(self):
        await self._threads.run(time.sleep, 600)
        yield Token("late")

    async def _thread_long(self):
        await self._threads.run(time.sleep, 15)
        yield Token("late")

    async def _block(self):
        hold_the_loop(2)
        yield Token("x")

    async def _flood(self):
        for _ in range(100_000):
            yield Token("flood ")

    async def _giant(self):
        yield Token("x" * 50_000_000)

    async def _giant_stage(self):
        content = Completed(stage="trouble", status="x" * 50_000_000)
        yield msgspec.structs.replace(Complete(), content=content)

    async def _many(self):
        """As many small events as a run may have, more or less, without a word in between."""
        for n in range(20_000):
            yield Token(f"{n} ")

    async def _tell(self, _reader, writer):
        gc.collect()
        pool, process = self._engine.pool, psutil.Process()
        tasks = Counter(task.get_name().split("-")[0] for task in asyncio.all_tasks())
        told = {
            "tasks": sum(tasks.values()),
            "names": tasks,
            "checked_out": pool.checkedout(),
            "threads": threading.active_count(),
            "fds": process.num_fds() - connected(pool) - pool.checkedout(),
            "rss_mb": process.memory_info().rss / 1e6,
            "used_mb": used_mb(process),
            "files": open_files(),
        }
        writer.write(json.dumps(told).encode())
        writer.close()


def connected(pool):
    """Return how many connections lie in the pool; places whose connection was given up count as ``checkedin`` too."""
    return sum(place.dbapi_connection is not None for place in pool._pool._queue._queue)


def used_mb(process):
    """Return the resident memory once the allocator has given back what nobody uses: what a leak would show in."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return process.memory_info().rss / 1e6


def open_files():
    """Return what the process has open: names of files, inodes of sockets, each socket's addresses after it."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(link.readlink().name)
    return sorted(found) + [f"{c.laddr} {c.raddr} {c.status}" for c in psutil.Process().net_connections("all")]


async def failing(problem):
    raise problem


def hold_the_loop(seconds):
    time.sleep(seconds)
