"""A strict reader of Server-Sent Events on a raw socket: sees every byte and its time, and can leave at any moment."""

import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
import urllib.parse

TERMINAL = {"done", "error", "cancelled"}


class Stream:
    """A request and its reply; ``events`` are those that were parsed so far, ``came_at`` the monotonic time of each."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._chunks = b""
        self._text = b""
        self.body = b""
        self.status = None
        self.headers = {}
        self.events = []
        self.came_at = []
        self.comments = 0
        self.retry = None
        self.last_id = 0
        self.limit = None
        """Bytes of the body that are read at most."""
        self.whole = False
        """Whether the body's end was seen; a connection that only closes is a broken stream."""

    async def read_head(self):
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines if line)}

    async def read_plain(self):
        """Return the body of a reply that is no stream."""
        return await self._reader.readexactly(int(self.headers["content-length"]))

    async def read_raw(self):
        """Read to the end without looking into it; return at how many moments something came."""
        moments = 0
        while await self._reader.read(65_536):
            moments += 1
        return moments

    async def until(self, wanted, timeout_s=30):
        """Read until an event of this type, or for which this is true, and return it; None if the stream ends first."""
        fits = wanted if callable(wanted) else lambda event: event["type"] == wanted
        seen = 0
        async with asyncio.timeout(timeout_s):
            while True:
                for event in self.events[seen:]:
                    seen += 1
                    if fits(event):
                        return event
                if not await self._more():
                    return None

    async def until_count(self, count):
        """Read until there are so many events, or the stream ends."""
        while len(self.events) < count and await self._more():
            pass

    async def rest(self, timeout_s=60):
        """Read to the end and return the events."""
        async with asyncio.timeout(timeout_s):
            while await self._more():
                pass
        return self.events

    async def _more(self):
        try:
            data = await self._reader.read(65_536)
        except ConnectionError:
            return False
        if not data:
            return False
        now = time.monotonic()
        self._chunks += data
        while (chunk := self._next_chunk()) is not None:
            self.whole = not chunk
            chunk = chunk if self.limit is None else chunk[: self.limit - len(self.body)]
            self.body += chunk
            self._text += chunk
        *blocks, self._text = self._text.split(b"\n\n")
        for block in blocks:
            self._take(block.decode("utf-8", "strict"), now)
        return not self.whole and (self.limit is None or len(self.body) < self.limit)

    def _next_chunk(self):
        """Return the next whole chunk of the transfer encoding, empty for the last, None when it is not here yet."""
        size, separator, rest = self._chunks.partition(b"\r\n")
        if not separator or len(rest) < int(size, 16) + 2:
            return None
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        self._chunks = rest[length + 2 :]
        return rest[:length]

    def _take(self, block, now):
        fields = []
        for line in block.split("\n"):
            assert "\r" not in line
            if line.startswith(":"):
                self.comments += 1
            elif line:
                fields.append(line.split(": ", 1))
        if fields and fields[0][0] == "retry":
            self.retry = int(fields.pop(0)[1])
        if not fields:
            return
        assert [name for name, _ in fields] == ["id", "data"], block
        event = json.loads(fields[1][1])
        assert list(event) == ["type", "content", "timestamp"]
        number = int(fields[0][1])
        if self.events:
            assert self.events[-1]["type"] not in TERMINAL, "something came behind the terminal event"
            assert number == self.last_id + 1, "a gap, or a repeat"
        self.last_id = number
        self.events.append(event)
        self.came_at.append(now)

    @property
    def frames(self):
        """The bytes of the events alone."""
        return self.body.replace(b": \n\n", b"")

    @property
    def last(self):
        return self.events[-1]["type"] if self.events else None

    @property
    def answer(self):
        return "".join(event["content"] for event in self.events if event["type"] == "token")

    @property
    def run_id(self):
        return self.events[0]["content"]["run_id"]

    def leave(self, how="close"):
        """Go away: ``close`` as a client does, ``reset`` as one that crashes."""
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._writer.transport.abort()
        else:
            self._writer.close()
        return time.monotonic()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


async def send_request(server, method, path, body=None, headers=None, *, received_bytes=None, send_bytes=None):
    """Send a request, or only its first ``send_bytes`` of the body, and return its stream with nothing read of it.

    ``received_bytes``: how much the kernel keeps for a client that does not read.
    """
    client = socket.socket()
    if received_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
    client.setblocking(False)
    port = urllib.parse.urlsplit(server.url).port
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=received_bytes or 2**16)
    payload = b"" if body is None else json.dumps(body).encode()
    fields = {"host": "localhost", "content-length": len(payload), **(headers or {})}
    if body is not None:
        fields["content-type"] = "application/json"
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + payload[:send_bytes])
    await writer.drain()
    return Stream(reader, writer)


async def ask(server, message, headers=None, *, received_bytes=None, **body):
    """Post a question and return its stream, the head of the reply read."""
    stream = await send_request(
        server, "POST", "/chat", {"message": message, **body}, headers, received_bytes=received_bytes
    )
    await stream.read_head()
    return stream


async def resume(server, run_id, after, headers=None):
    """Return the stream of a run's events behind number ``after``."""
    headers = {"Last-Event-ID": after, **(headers or {})}
    stream = await send_request(server, "GET", f"/runs/{run_id}/events", headers=headers)
    await stream.read_head()
    return stream


async def fetch(server, method, path, body=None, headers=None):
    """Return status, headers and body of a reply that is no stream; JSON is decoded."""
    async with await send_request(server, method, path, body, headers) as stream:
        await stream.read_head()
        content = await stream.read_plain()
        return (
            stream.status,
            stream.headers,
            json.loads(content) if "json" in stream.headers["content-type"] else content,
        )


DRAIN = """
import hashlib, sys, urllib.request
url, body = sys.argv[1], sys.argv[2].encode() or None
request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
with urllib.request.urlopen(request) as reply:
    read = b"".join(iter(lambda: reply.read(65536), b"")).replace(b": \\n\\n", b"")
print(hashlib.sha256(read).hexdigest(), read.count(b'"type":"token"'), read.rsplit(b"data: ", 1)[1][:14].decode())
"""


async def drained(server, path, body=None):
    """Read a stream to its end in a process of its own: parsing what is large would hold up those that are timed here.

    Return the digest of its frames, the number of its tokens, and the type of its last event.
    """
    command = [sys.executable, "-c", DRAIN, server.url + path, json.dumps(body) if body else ""]
    reading = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    digest, tokens, last = (await reading.communicate())[0].decode().split()
    return digest, int(tokens), last.split('"')[3]


async def cancel(server, run_id):
    """Stop a run and return it as it ended."""
    status, _, run = await fetch(server, "POST", f"/runs/{run_id}/cancel")
    assert status == 200
    return run


async def whole(server, message, **body):
    """Ask, read to the end, check what holds of every stream, and return it."""
    async with await ask(server, message, **body) as stream:
        assert stream.status == 200
        await stream.rest()
        check(stream)
        return stream


def check(stream):
    """Assert what holds of every stream that was read to its end: contiguous ids are checked while it is parsed."""
    assert stream.whole, "the body broke off"
    assert stream.last in TERMINAL
    assert sum(event["type"] in TERMINAL for event in stream.events) == 1
