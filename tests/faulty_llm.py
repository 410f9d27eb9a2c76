"""The far end of an LLM: an OpenAI-compatible server on a real socket that answers, or fails, as the question says.

A question may contain ``llm:<mode>``; without one the answer is ``TOKENS``.
"""

import asyncio
import json
import re
import threading
import time

STANDALONE = "What are the side effects of aripiprazole in children?"
TOKENS = ["Hello", " from", " the", " far", " end", " [1]", "."]
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
MODE = re.compile(r"llm:([a-z0-9_]+)")


class FaultyLLM:
    """Runs in a thread of its own; ``requests`` holds what was asked, ``closed_at`` when clients left early."""

    def __init__(self):
        self.requests = []
        self.closed_at = []
        self.open = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self):
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends connections that are kept alive too
            runner.run(self._serve())

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader, writer):
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(LENGTH.findall(head)[0])
                await self._answer(json.loads(await reader.readexactly(length)), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, request, reader, writer):
        self.requests.append(request)
        asked = MODE.search(request["messages"][-1]["content"])
        mode = asked[1] if asked else "plain"
        if mode.startswith("status"):
            await self._refuse(int(mode[6:]), writer)
            return
        self.open += 1
        leaving = asyncio.ensure_future(reader.read(1))
        answering = asyncio.ensure_future(self._stream(mode, writer))
        await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
        self.open -= 1
        if not answering.done():
            self.closed_at.append(time.monotonic())
        answering.cancel()
        writer.close()

    async def _refuse(self, status, writer):
        body = json.dumps({"error": {"message": "secret upstream text", "type": "x", "code": str(status)}}).encode()
        writer.write(
            b"HTTP/1.1 %d Refused\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )
        await writer.drain()

    async def _stream(self, mode, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        await getattr(self, f"_{mode}")(writer)
        await writer.drain()

    async def _plain(self, writer):
        for token in TOKENS:
            await send(writer, {"content": token})
        await finish(writer)

    async def _standalone(self, writer):
        await send(writer, {"content": f'"{STANDALONE}"\n'})
        await finish(writer)

    async def _slow(self, writer):
        for n in range(200):
            await send(writer, {"content": f" w{n}"})
            await asyncio.sleep(0.02)
        await finish(writer)

    async def _stamped(self, writer):
        """Each token is the monotonic time in ns at which it was written, 20 ms after the one before."""
        due = time.monotonic()
        for _ in range(200):
            due += 0.02
            await asyncio.sleep(due - time.monotonic())
            await send(writer, {"content": f" {time.monotonic_ns()}"})
        await finish(writer)

    async def _silent(self, writer):
        await writer.drain()
        await asyncio.sleep(600)

    async def _stall(self, writer):
        for token in TOKENS[:3]:
            await send(writer, {"content": token})
        await asyncio.sleep(600)

    async def _drip(self, writer):
        await send(writer, {"content": "Hello"})
        while True:
            await send(writer, {"content": ""})
            await asyncio.sleep(0.05)

    async def _truncated(self, writer):
        for token in TOKENS[:3]:
            await send(writer, {"content": token})

    async def _length(self, writer):
        await send(writer, {"content": "Hello"})
        await finish(writer, "length")

    async def _citations(self, writer):
        for token in ["It", " helps", " [", "1", "]", " and", " [9", "9]", "."]:
            await send(writer, {"content": token})
        await finish(writer)

    async def _garbled(self, writer):
        for token in ["a\0b", "\ud83d", "\ude00", " \udc00 ", "end"]:
            await send(writer, {"content": token})
        await finish(writer)

    async def _empty(self, writer):
        await finish(writer)


async def send(writer, delta, reason=None):
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await writer.drain()


async def finish(writer, reason="stop"):
    await send(writer, {}, reason)
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [], "usage": usage}
    writer.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
