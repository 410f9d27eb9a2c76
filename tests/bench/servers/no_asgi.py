"""The floor: a protocol that passes tokens on as they come, with no ASGI, no HTTP parser and no JSON between.

What it reads of either side is just what tells the tokens from the rest, so it serves nothing but this benchmark.
"""

import asyncio
import re
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.servers.frames import HEADERS, Question, done_frame, token_frame
from tests.bench.servers.openai_protocol import request_body
from tests.bench.servers.serving import arguments

TEXT = re.compile(rb'"delta":\{"content":("(?:[^"\\]|\\.)+")')
END = b"0\r\n\r\n"
HEAD = "HTTP/1.1 200 OK\r\n{}transfer-encoding: chunked\r\n\r\n".format(
    "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
).encode()


def http_chunk(body):
    return b"%x\r\n%b\r\n" % (len(body), body)


class FarEnd(asyncio.Protocol):
    """The upstream's answer to one question, written to its reader."""

    def __init__(self, reader):
        self._reader = reader
        self._unread = b""

    def data_received(self, data):
        whole, mark, self._unread = (self._unread + data).rpartition(b"\n\n")
        if found := TEXT.findall(whole + mark):
            self._reader.write(http_chunk(b"".join([token_frame(text) for text in found])))
        if self._unread.endswith(END):
            self._reader.write(http_chunk(done_frame()) + END)


class Reader(asyncio.Protocol):
    """A client; its request comes whole."""

    def __init__(self, upstream):
        self._url = urlsplit(upstream)
        self._far_end = None
        self._gone = False

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, problem):
        self._gone = True
        if self._far_end:
            self._far_end.abort()

    def data_received(self, data):
        asked = msgspec.json.decode(data.partition(b"\r\n\r\n")[2], type=Question)
        self._asking = asyncio.ensure_future(self._ask(request_body(asked.message)))

    async def _ask(self, body):
        self._transport.write(HEAD)
        address = self._url.hostname, self._url.port
        loop = asyncio.get_running_loop()
        self._far_end, _ = await loop.create_connection(lambda: FarEnd(self._transport), *address)
        head = f"POST {self._url.path}/chat/completions HTTP/1.1\r\nhost: {self._url.netloc}\r\n"
        self._far_end.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if self._gone:
            self._far_end.abort()


async def serve(upstream, port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Reader(upstream), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    given = arguments()
    uvloop.run(serve(given.upstream, given.port))
