"""Many streams at once: opens them, reads every frame, and says how late each token came.

Raw ``asyncio.Protocol``, so that a token costs as little as can be: what is measured is the server's delay, and the
core that this shares with the upstream is the first to be full otherwise.
"""

import array
import asyncio
import gc
import json
import re
import time
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.metering import cpu_ns

TOKEN = re.compile(rb'data: ?\{"type": ?"token", ?"content": ?"@(\d{18})", ?"timestamp": ?"[0-9T:.-]{23}Z"\}\r?\n')
"""A frame with one token in it; anything else is not counted."""
UPSTREAM_TOKEN = re.compile(rb'"content":"@(\d{18})"')
DONE = b'"type":"done"'
END = b"0\r\n\r\n"
REFUSAL = re.compile(rb"HTTP/1\.1 [345]")


class Script(msgspec.Struct, frozen=True):
    """What the upstream shall answer: see :mod:`tests.bench.upstream`."""

    tokens: int
    interval_ms: int
    first_ms: int = 0

    def __str__(self):
        return f"bench:{self.tokens}x{self.interval_ms}+{self.first_ms}"


class Target(msgspec.Struct, frozen=True):
    """Where streams are asked for, and how a token looks there."""

    url: str
    pid: int
    topic: str = ""
    """Words before the script in every question."""
    openai: bool = False
    """The upstream itself, without a server between."""

    @property
    def address(self):
        split = urlsplit(self.url)
        return split.hostname, split.port

    @property
    def token(self):
        return UPSTREAM_TOKEN if self.openai else TOKEN

    @property
    def last_words(self):
        return b"[DONE]" if self.openai else DONE

    def request(self, script):
        """Return the bytes of the request for one stream."""
        question = f"{self.topic} {script}".strip()
        asked = {"stream": True, "messages": [{"role": "user", "content": question}]}
        body = json.dumps(asked if self.openai else {"message": question}).encode()
        path = "/v1/chat/completions" if self.openai else "/chat"
        head = f"POST {path} HTTP/1.1\r\nhost: {urlsplit(self.url).netloc}\r\ncontent-type: application/json\r\n"
        return f"{head}accept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many streams of which script, when they begin, and when all is over."""

    script: Script
    streams: int
    spread_s: float = 0.0
    """The streams begin evenly over this time; 0: all at once."""
    plateau_s: float | None = None
    """Leave all streams so long after each has had a token; None: read them to their ends."""
    deadline_s: float = 120.0


class Outcome(msgspec.Struct, kw_only=True):
    """What a load saw; times in nanoseconds, one a token or one a stream, in no order."""

    tokens: int
    whole: int
    """Streams with all their tokens, a last event, and a proper end."""
    late: array.array
    """From the upstream's writing of a token to its arrival here."""
    first: array.array
    """From a stream's beginning to its first token, less what the upstream was told to wait before that."""
    plateau_tokens: int
    plateau_cpu_ns: int
    """Of the server's process while every stream was open; both 0 when there was no such time."""
    problems: list[str]


class Stream(asyncio.Protocol):
    """One stream, from its request to its end."""

    def __init__(self, load):
        self._load = load
        self._begun_ns = time.monotonic_ns()
        self._unread = self._end = b""
        self._last_words = False
        self.tokens = 0
        self.ended = False

    def connection_made(self, transport):
        self._transport = transport
        self._load.open.add(self)
        transport.write(self._load.request)

    def data_received(self, data):
        now = time.monotonic_ns()
        unread = self._unread + data
        if stamps := self._load.token.findall(unread):
            if not self.tokens:
                self._load.first_token(now - self._begun_ns)
            self.tokens += len(stamps)
            self._load.late.extend([now - int(stamp) for stamp in stamps])
        line = unread.rfind(b"\n") + 1
        self._unread = unread[line:]
        self._last_words = self._last_words or self._load.last_words in unread
        self._end = (self._end + data)[-len(END) :]
        if self._last_words and self._end == END:
            self._over("" if self.tokens == self._load.plan.script.tokens else f"{self.tokens} tokens")
        elif REFUSAL.match(unread):
            self._over(unread[-300:].decode(errors="replace"))

    def connection_lost(self, problem):
        if not self.ended:
            self._over(f"closed after {self.tokens} tokens")

    def leave(self):
        self.ended = True
        self._transport.abort()

    def _over(self, problem):
        self.leave()
        self._load.stream_over(self, problem)


class Load:
    """Carries out one plan."""

    def __init__(self, target, plan):
        self.plan = plan
        self.token = target.token
        self.last_words = target.last_words
        self.request = target.request(plan.script)
        self.open = set()
        self.late = array.array("q")
        self._target = target
        self._first = array.array("q")
        self._whole = 0
        self._over = 0
        self._problems = []
        self._plateau = [(0, 0), (0, 0)]
        self._finished = asyncio.Event()

    async def run(self):
        """Open all streams, read them, and return the outcome."""
        self._loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(self._open_all())
        try:
            async with asyncio.timeout(self.plan.deadline_s):
                await self._finished.wait()
        except TimeoutError:
            self._problems.append(f"not over after {self.plan.deadline_s} s")
        opening.cancel()
        self._mark_end()
        for stream in self.open:
            stream.leave()
        return self._outcome()

    async def _open_all(self):
        begun = self._loop.time()
        connecting = []
        for n in range(self.plan.streams):
            wait_s = begun + self.plan.spread_s * n / self.plan.streams - self._loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            connecting.append(self._loop.create_task(self._connect()))
        await asyncio.gather(*connecting)

    async def _connect(self):
        stream = Stream(self)
        try:
            await self._loop.create_connection(lambda: stream, *self._target.address)
        except OSError as problem:
            self.stream_over(stream, str(problem))

    def first_token(self, after_ns):
        self._first.append(after_ns - self.plan.script.first_ms * 1_000_000)
        if len(self._first) == self.plan.streams:
            self._plateau[0] = self._now()
            if self.plan.plateau_s is not None:
                self._loop.call_later(self.plan.plateau_s, self._finished.set)

    def stream_over(self, stream, problem):
        self._mark_end()
        self.open.discard(stream)
        self._over += 1
        if problem:
            self._problems.append(problem)
        else:
            self._whole += 1
        if self._over == self.plan.streams:
            self._finished.set()

    def _mark_end(self):
        """The plateau ends with the first stream that does."""
        if self._plateau[0] != (0, 0) and self._plateau[1] == (0, 0):
            self._plateau[1] = self._now()

    def _now(self):
        return len(self.late), cpu_ns(self._target.pid)

    def _outcome(self):
        (tokens, cpu), (later_tokens, later_cpu) = self._plateau
        return Outcome(
            tokens=len(self.late),
            whole=self._whole,
            late=self.late,
            first=self._first,
            plateau_tokens=later_tokens - tokens,
            plateau_cpu_ns=later_cpu - cpu,
            problems=self._problems,
        )


def run(target, plan):
    """Carry out a plan against a server and return the outcome.

    Garbage is not collected meanwhile: that would be a delay of ours in the figures.
    """
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(Load(target, plan).run())
    finally:
        gc.enable()
