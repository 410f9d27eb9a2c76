"""Reads the tokens of an OpenAI-compatible upstream, in two ways: by a protocol of our own, and with aiohttp."""

import asyncio
from urllib.parse import urlsplit

import aiohttp
import msgspec


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


_decode = msgspec.json.Decoder(Chunk).decode


def request_body(question):
    asked = [{"role": "user", "content": question}]
    return msgspec.json.encode({"model": "bench", "stream": True, "messages": asked})


def text_of(line):
    """Return the text in a ``data:`` line, "" when it has none."""
    if not line.startswith(b"data: {"):
        return ""
    choices = _decode(line[6:]).choices
    return (choices[0].delta.content or "") if choices else ""


class AiohttpTokens:
    """The upstream as an application reads it: aiohttp, line by line; JSON by msgspec."""

    def __init__(self, upstream):
        self._url = f"{upstream}/chat/completions"
        self._session = None

    async def __call__(self, question):
        """Yield the tokens of the answer."""
        if self._session is None:
            unlimited = aiohttp.ClientTimeout(total=None)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=unlimited)
        headers = {"content-type": "application/json"}
        async with self._session.post(self._url, data=request_body(question), headers=headers) as response:
            async for line in response.content:
                if text := text_of(line):
                    yield text


class Answer(asyncio.Protocol):
    """A connection to the upstream; hands over what has come since it was last asked."""

    def __init__(self):
        self._unread = b""
        self._in_body = False
        self._tokens = []
        self._over = False
        self._waiter = None
        self.closed = False

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, problem):
        self.closed = self._over = True
        self._wake()

    def data_received(self, data):
        self._unread += data
        if not self._in_body and b"\r\n\r\n" in self._unread:
            self._in_body = True
            self._unread = self._unread.partition(b"\r\n\r\n")[2]
        if self._in_body:
            lines = b"".join(self._http_chunks()).split(b"\n")
            self._tokens += [text for line in lines if (text := text_of(line))]
            self._wake()

    def _http_chunks(self):
        """Yield the bodies of the whole chunks that have come; an event never spans two of them here."""
        place = 0
        while (end := self._unread.find(b"\r\n", place)) > 0:
            size = int(self._unread[place:end], 16)
            if len(self._unread) < end + size + 4:
                break
            yield self._unread[end + 2 : end + 2 + size]
            place = end + size + 4
            self._over = size == 0
        self._unread = self._unread[place:]

    def _wake(self):
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def batches(self, request):
        """Send a request and yield lists of tokens until the answer's end."""
        self._in_body, self._over = False, False
        self.transport.write(request)
        while not self._over or self._tokens:
            if self._tokens:
                ready, self._tokens = self._tokens, []
                yield ready
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter


class RawTokens:
    """The upstream by :class:`Answer`; connections are kept for the next question."""

    def __init__(self, upstream):
        url = urlsplit(upstream)
        self._address = url.hostname, url.port
        self._head = f"POST {url.path}/chat/completions HTTP/1.1\r\nhost: {url.netloc}\r\n".encode()
        self._idle = []

    async def __call__(self, question):
        """Yield lists of tokens: all that have come since the last was taken."""
        body = request_body(question)
        length = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        answer = await self._connection()
        try:
            async for tokens in answer.batches(self._head + length + body):
                yield tokens
        except BaseException:
            answer.transport.abort()
            raise
        self._idle.append(answer)

    async def _connection(self):
        while self._idle:
            if not (answer := self._idle.pop()).closed:
                return answer
        _, answer = await asyncio.get_running_loop().create_connection(Answer, *self._address)
        return answer
