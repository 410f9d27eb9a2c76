"""The far end of an LLM: an OpenAI-compatible server on a real socket that answers, or fails, as the question says.

A question may contain ``llm:<mode>``; without one the answer is ``TOKENS``. Modes that are no method of
:class:`Answers`:

``status<code>[ra<seconds|date|junk>]``
    refuses, with a ``Retry-After`` if asked to: so many seconds, a date 2 s ahead, or no time at all
``flaky<n>``, ``dropped<n>``
    the first n times a question is asked it is refused with 503, or its connection is reset; then it is answered
``redirect``
    answers 307 to another port, on which whoever calls is noted in ``strays``
``headerless``
    never says a word
``echo<n>``
    answers with the n-th of ``texts``, a code point at a time if it is short, else 3 to 7
"""

import asyncio
import json
import re
import socket
import struct
import threading
import time
from email.utils import formatdate
from itertools import cycle, islice

STANDALONE = "What are the side effects of aripiprazole in children?"
TOKENS = ["Hello", " from", " the", " far", " end", " [1]", "."]
SECRET = "secret upstream text"
ODD_TEXT = "\ufeffA\u2028B\u2029C\r\nD\u202eE\u2066F\x85G\x0b\x0c\x1eH"
"""A byte order mark, every separator of lines that some parser knows, and marks that turn the direction of writing."""
BIG = "0123456789abcde " * 65_536
MARKDOWN = re.findall(
    r"\s*\S+\n*",
    "## How it works\n\nIt **steadies** the mood within *two* weeks [1], see `dose` below, and is "
    + "taken with food by most people who need it " * 6
    + "[2].\n\n- once a day [1]\n- with **water**\n- never with `grapefruit`\n\n"
    "| week | dose | level |\n|---|---|---|\n| 1 | 300 mg | low |\n| 2 | 600 mg | *even* |\n\n"
    "```python\nfor week in range(2):\n    take(dose[week])\n```\n\n",
)
"""Tokens of an answer with everything that people write."""
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
MODE = re.compile(r"llm:([a-z]+)(\d*)(?:ra(\w+))?")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n\r\n"
SHORT_CHARS = 400
"""Up to this length an echo's every code point is a token, with a pause behind it so that a page shows it."""
PAUSE_S = 0.001
PATIENCE_S = 3
"""How long an answered client's connection is left open for it to close."""


class Call:
    """One request: when it came, and when its connection was closed; None if its client never did."""

    def __init__(self, head, request):
        self.head = head
        self.request = request
        self.question = request["messages"][-1]["content"]
        self.came_at = time.monotonic()
        self.last_written_at = self.came_at
        self.closed_at = None


class FaultyLLM:
    """Runs in a thread of its own; ``calls`` holds what was asked, ``closed_at`` when clients left early."""

    def __init__(self):
        self.calls = []
        self.closed_at = []
        self.strays = []
        self.texts = []
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

    @property
    def requests(self):
        """The bodies of all requests."""
        return [call.request for call in self.calls]

    def calls_about(self, marker):
        """Return the calls with this marker in their question, oldest first."""
        return [call for call in self.calls if marker in call.question]

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        canary = await asyncio.start_server(self._stray, "127.0.0.1", 0)
        self.url, self.elsewhere = (f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}/v1" for s in (server, canary))
        self._ready.set()
        await self._stop.wait()
        server.close()
        canary.close()

    async def _stray(self, reader, writer):
        self.strays.append(await reader.read(65_536))
        writer.close()

    async def _connection(self, reader, writer):
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(LENGTH.findall(head)[0])
                await self._answer(Call(head, json.loads(await reader.readexactly(length))), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, call, reader, writer):
        self.calls.append(call)
        mode, number, retry_after = MODE.findall(f"{call.question} llm:plain")[0]
        if mode == "status":
            await self._refuse(int(number), writer, retry_after)
        elif mode in {"flaky", "dropped"} and len(self.calls_about(call.question)) <= int(number):
            await (self._refuse(503, writer) if mode == "flaky" else reset(writer))
        elif mode == "redirect":
            await self._redirect(writer)
        else:
            await self._stream(call, "plain" if mode in {"flaky", "dropped"} else mode, reader, writer)

    async def _stream(self, call, mode, reader, writer):
        self.open += 1
        leaving = asyncio.ensure_future(reader.read(1))
        answering = asyncio.ensure_future(getattr(Answers(call, writer, self.texts), mode)())
        await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
        left_early = not answering.done()
        await asyncio.wait({leaving}, timeout=PATIENCE_S)  # also told, a little later, of a connection that broke
        self.open -= 1
        if leaving.done():
            call.closed_at = time.monotonic()
            leaving.exception()
        if left_early:
            self.closed_at.append(time.monotonic())
        answering.cancel()
        leaving.cancel()
        writer.close()

    async def _refuse(self, status, writer, retry_after=None):
        body = json.dumps({"error": {"message": SECRET, "type": "x", "code": str(status)}}).encode()
        writer.write(b"HTTP/1.1 %d Refused\r\ncontent-type: application/json\r\n" % status)
        if retry_after:
            when = formatdate(time.time() + 2, usegmt=True) if retry_after == "date" else retry_after
            writer.write(f"retry-after: {when}\r\n".encode())
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def _redirect(self, writer):
        location = f"{self.elsewhere}/chat/completions".encode()
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % location)
        await writer.drain()


class Answers:
    """What a far end says to one call, a method for each mode."""

    def __init__(self, call, writer, texts):
        self._call = call
        self._writer = writer
        self._texts = texts
        self._chunked = self._head_sent = False

    async def headerless(self):
        await asyncio.sleep(600)

    async def plain(self):
        await self._say(*TOKENS)
        await self._finish()

    async def standalone(self):
        await self._say(f'"{STANDALONE}"\n')
        await self._finish()

    async def slow(self):
        for n in range(200):
            await self._say(f" w{n}")
            await asyncio.sleep(0.02)
        await self._finish()

    async def brisk(self):
        """Two thousand tokens of Markdown, 200 a second."""
        due = time.monotonic()
        for token in islice(cycle(MARKDOWN), 2000):
            due += 0.005
            await asyncio.sleep(due - time.monotonic())
            await self._say(token)
        await self._finish()

    async def stamped(self):
        """Each token is the monotonic time in ns at which it was written, 20 ms after the one before."""
        due = time.monotonic()
        for _ in range(200):
            due += 0.02
            await asyncio.sleep(due - time.monotonic())
            await self._say(f" {time.monotonic_ns()}")
        await self._finish()

    async def echo(self):
        text = self._texts[int(MODE.findall(self._call.question)[0][1])]
        for piece in pieces(text):
            await self._say(piece)
            await asyncio.sleep(PAUSE_S if len(text) <= SHORT_CHARS else 0)
        await self._finish()

    async def silent(self):
        await self._write(b"")
        await asyncio.sleep(600)

    async def stall(self):
        await self._say(*TOKENS[:3])
        await asyncio.sleep(600)

    async def drip(self):
        await self._say("Hello")
        while True:
            await self._say("")
            await asyncio.sleep(0.05)

    async def pings(self):
        """Nothing but comments, which are bytes and no content."""
        while True:
            await self._write(b": ping\n\n")
            await asyncio.sleep(0.05)

    async def sayping(self):
        """One token, then nothing but comments."""
        await self._say("Hello")
        await self.pings()

    async def truncated(self):
        await self._say(*TOKENS[:3])
        self._writer.close()

    async def nothing(self):
        """Neither a token nor a reason for the end."""
        await self._write(b"")
        self._writer.close()

    async def reset(self):
        self._chunked = True
        await self._say(*TOKENS[:3])
        await asyncio.sleep(0.05)  # what is unread when a connection is reset is lost
        await reset(self._writer)

    async def cut(self):
        """Closes within a chunked body."""
        self._chunked = True
        await self._say(*TOKENS[:3])
        self._writer.close()

    async def unwilling(self):
        """Resets each connection before the first token, headers sent."""
        self._chunked = True
        await self._write(b"")
        await asyncio.sleep(0.02)
        await reset(self._writer)

    async def oops(self):
        await self._say(*TOKENS[:3])
        await self._write(b"data: " + json.dumps({"error": {"message": SECRET, "code": 500}}).encode() + b"\n\n")

    async def malformed(self):
        await self._say(*TOKENS[:3])
        await self._write(b'data: {"choices": [{"delta": {"content": "' + SECRET.encode() + b"\n\n")

    async def badbytes(self):
        await self._say(*TOKENS[:3])
        await self._write(
            b"data: " + json.dumps(chunk({"content": "@@"})).encode().replace(b"@@", b"\xc3\x28\xff") + b"\n\n"
        )

    async def big(self):
        await self._say(BIG)
        await self._finish()

    async def toolcall(self):
        call = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        await self._delta({"role": "assistant", "tool_calls": [call]})
        await self._finish("tool_calls")

    async def filtered(self):
        await self._say(*TOKENS[:3])
        await self._finish("content_filter")

    async def length(self):
        await self._say("Hello")
        await self._finish("length")

    async def citations(self):
        await self._say("It", " helps", " [", "1", "]", " and", " [9", "9]", ".")
        await self._finish()

    async def garbled(self):
        await self._say("a\0b", "\ud83d", "\ude00", " \udc00 ", "end")
        await self._finish()

    async def odd(self):
        for character in ODD_TEXT:
            await self._write(
                b"data: " + json.dumps(chunk({"content": character}), ensure_ascii=False).encode() + b"\n\n"
            )
        await self._finish()

    async def empty(self):
        await self._finish()

    async def _say(self, *tokens):
        for token in tokens:
            await self._delta({"content": token})

    async def _delta(self, delta, reason=None):
        await self._write(b"data: " + json.dumps(chunk(delta, reason)).encode() + b"\n\n")

    async def _finish(self, reason="stop"):
        await self._delta({}, reason)
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        last = chunk({}) | {"choices": [], "usage": usage}
        await self._write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")

    async def _write(self, content):
        if not self._head_sent:
            self._writer.write(HEAD % (b"transfer-encoding: chunked" if self._chunked else b"connection: close"))
            self._head_sent = True
        if self._chunked and content:
            content = b"%x\r\n%b\r\n" % (len(content), content)
        self._writer.write(content)
        self._call.last_written_at = time.monotonic()
        await self._writer.drain()


def pieces(text):
    """Yield a text in tokens that keep to no border of words, marks or characters."""
    sizes = cycle([1]) if len(text) <= SHORT_CHARS else cycle([3, 5, 4, 7, 6])
    rest = iter(text)
    while piece := "".join(islice(rest, next(sizes))):
        yield piece


def chunk(delta, reason=None):
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


async def reset(writer):
    """Close with RST instead of FIN, as a far end does that was killed."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
