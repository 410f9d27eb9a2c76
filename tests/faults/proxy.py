"""A TCP proxy that can be told to be silent, or to break off; before PostgreSQL, the LLM's far end or the server."""

import asyncio
import socket
import struct
import threading
from contextlib import closing, suppress

CHUNK = 65536


class FaultProxy:
    """Runs in a thread of its own and hands on what it gets, until it is told otherwise.

    ``far_end`` is a path of a Unix socket, or host and port. ``silent``: take everything and hand on nothing.
    ``cut_after``: break each connection off once so many bytes have come back from the far end, by a reset or, with
    ``half_close``, by an end of what comes back that looks orderly.
    """

    def __init__(self, far_end):
        self._far_end = far_end
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.silent = False
        self.half_close = False
        self.cut_after = None

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader, writer):
        with suppress(OSError), closing(writer):  # also when the proxy ends, which cancels this
            if isinstance(self._far_end, str):
                back, forth = await asyncio.open_unix_connection(self._far_end)
            else:
                back, forth = await asyncio.open_connection(*self._far_end)
            with closing(forth):
                pumps = [
                    asyncio.ensure_future(self._pump(reader, forth)),
                    asyncio.ensure_future(self._back(back, writer)),
                ]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader, writer):
        while data := await reader.read(CHUNK):
            await self._hand_on(writer, data)

    async def _back(self, reader, writer):
        passed = 0
        while data := await reader.read(CHUNK):
            if self.cut_after is not None and passed + len(data) > self.cut_after:
                await self._hand_on(writer, data[: max(self.cut_after - passed, 0)])
                self._cut(writer)
                return
            passed += len(data)
            await self._hand_on(writer, data)

    async def _hand_on(self, writer, data):
        if not self.silent:
            writer.write(data)
            await writer.drain()

    def _cut(self, writer):
        if self.half_close:
            writer.write_eof()
        else:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
