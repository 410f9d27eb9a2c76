"""A PostgreSQL of a test's own, to be killed, started again at the same address, frozen and thawed."""

import asyncio
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import asyncpg
import psutil

from api.storage.embedded import prepared

END_S = 10


class KillablePostgres:
    """An embedded server that nobody brings back but the test; ``url`` is its database's, for asyncpg and for us."""

    def __init__(self, folder):
        self._folder = folder
        self._undo = ExitStack()

    def __enter__(self):
        self._postmaster = self._undo.enter_context(prepared(self._folder))
        self.url = self._postmaster.url
        self._undo.callback(self.stop)
        self.start()
        return self

    def __exit__(self, *exception):
        self._undo.close()

    def start(self):
        """Start the server and wait until it answers."""
        self._child = self._postmaster.spawn()
        self._postmaster.await_ready(self._child)

    def stop(self):
        self.thaw()
        self._child.stop()

    def processes(self):
        """Return the postmaster, first, and all that it has started."""
        if not self._child.alive:
            return []
        pid = int((self._folder / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def kill(self):
        """Kill -9 everything and return when the last process is gone; what they leave on the disk stays."""
        killed = self._signalled("kill")
        self._child.wait()
        _, alive = psutil.wait_procs(killed, timeout=END_S)
        assert not alive

    def freeze(self):
        """Stop every process where it is: the kernel goes on to accept connections, and nobody answers."""
        self._signalled("suspend")

    def thaw(self):
        self._signalled("resume")

    @contextmanager
    def frozen(self):
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    @contextmanager
    def down(self):
        self.kill()
        try:
            yield
        finally:
            self.start()

    def _signalled(self, how):
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                getattr(process, how)()
        return processes


@asynccontextmanager
async def connection_to(url):
    """Lend a connection of asyncpg's own."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def fetch(url, query, *arguments):
    """Run one query on a connection of its own."""
    async with connection_to(url) as connection:
        return await connection.fetch(query, *arguments)


@asynccontextmanager
async def locked(url, table):
    """Keep a table from everybody, by a session of its own."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
    await connection.execute(f"begin; lock table {table} in access exclusive mode")
    try:
        yield
    finally:
        connection.terminate()


async def until(condition, seconds=15):
    """Wait until an async condition holds; return how long it took, in seconds."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun
