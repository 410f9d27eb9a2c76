"""Posts to one HTTP server whose answers are streams: an asyncio protocol around llhttp, and connections that are kept.

A general client's layers cost more for each token than what is done with it; here a body's bytes wake whoever reads.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Mapping
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohappyeyeballs
import httptools

IDLE_S = 15.0
"""A connection that was not used for longer is not used again: servers close theirs without a word after a while."""
MAX_HEAD_BYTES = 64 * 1024
MAX_WAITING_BYTES = 1024 * 1024
"""Of a body that are kept for a slow reader; then no more is read."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class BadResponse(Exception):
    """What the server says is not HTTP, or not as was asked."""


class Disconnected(ConnectionError):
    """The connection ended before the answer did."""


class Connection(asyncio.Protocol):
    """One connection, and the answer that it is receiving."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.used = False
        """Whether it has carried an answer before this one."""
        self.idle_since = 0.0
        self.is_whole = False
        """Whether the answer has come to its end; not all of it may be taken yet."""
        self._has_end = self._keeps = False
        self._broken: Exception | None = None
        self._received: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport

    def post(self, head: bytes, body: bytes) -> None:
        """Send a request; what it is answered follows."""
        self.status, self.headers, self._received = 0, {}, []
        self.is_whole, self._has_end, self._broken = False, False, None
        self._waiting_bytes = self._head_bytes = 0
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(head + body)

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            Disconnected, BadResponse: They do not come.
        """
        while not self.status:
            await self.news()

    async def read(self) -> bytes:
        """Return what has come of the body, b"" at its end.

        Raises:
            Disconnected, BadResponse: It does not come to its end.
        """
        while not (received := self.taken()) and not self.is_whole:
            await self.news()
        return received

    def taken(self) -> bytes:
        """Return what has come of the body and was not taken yet, b"" when that is nothing."""
        if not self._received:
            return b""
        received = self._received[0] if len(self._received) == 1 else b"".join(self._received)
        self._received = []
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.transport.resume_reading()
        self._waiting_bytes = 0
        return received

    def news(self) -> asyncio.Future[None]:
        """Return what ends when more has come, or the end.

        Raises:
            Disconnected, BadResponse: That will not be.
        """
        if self._broken:
            raise self._broken
        self._reader = self._loop.create_future()
        return self._reader

    @property
    def is_reusable(self) -> bool:
        """Whether all was read and the server keeps the connection."""
        return self.is_whole and self._keeps and not self._received and not self.transport.is_closing()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _break(self, problem: Exception) -> None:
        self._broken = self._broken or problem
        self.transport.abort()
        self._wake()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection's other end, also when it becomes that of TLS."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self.is_whole:  # nothing was asked
            self.transport.abort()
            return
        if not self.status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as problem:
            self._break(BadResponse(str(problem)))
            return
        if not self.status and self._head_bytes > MAX_HEAD_BYTES:
            self._break(BadResponse("headers without end"))
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; of a body whose length was not said it is the regular one."""
        if self.status and not self._has_end and exc is None:
            self.is_whole = True
        self._broken = self._broken or Disconnected()
        self._broken.__cause__ = exc
        self._wake()

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; of several with one name the last."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Note the status; what comes before an answer, such as 100, is none."""
        status = self._parser.get_status_code()
        if self.is_whole:
            raise BadResponse("a second answer")
        if status >= 200:
            self.status = status
            self._has_end = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        else:
            self.headers = {}

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._received.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note the end."""
        if self.status:
            self.is_whole, self._keeps = True, self._parser.should_keep_alive()


class HttpStream:
    """Connections to the server of one address, as many as are asked for at once, and idle ones to be used again.

    ``headers`` go with every request. The environment's proxy is used, for ``https`` by a tunnel.

    Raises:
        ValueError: The address or a header is none.
    """

    def __init__(self, url: str, headers: Mapping[str, str], connect_timeout_s: float) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in DEFAULT_PORTS or not self._url.hostname:
            raise ValueError(f"{url!r} is not an address that begins with http:// or https://")
        self._connect_timeout_s = connect_timeout_s
        self._host = self._url.hostname.encode("idna").decode()
        self._port = self._url.port or DEFAULT_PORTS[self._url.scheme]
        self._proxy = proxy_of(self._url)
        self._head = self._request_head(headers)
        self._idle: list[Connection] = []
        self.tls: ssl.SSLContext | None = None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> Connection:
        """Send a request, with ``headers`` of its own; return the connection once the answer's headers are there.

        The connection must be given to :meth:`release`. The request is sent again if one was used and turns out to be
        closed.

        Raises:
            OSError, TimeoutError, ssl.SSLError: There is no connection.
            Disconnected, BadResponse: There is no answer.
        """
        own = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode("latin-1")
        while True:
            connection = self._take_idle() or await self._connect()
            try:
                connection.post(self._head + own + b"content-length: %d\r\n\r\n" % len(body), body)
                await connection.head()
            except Disconnected:
                connection.transport.abort()
                if not connection.used:
                    raise
            except BaseException:
                connection.transport.abort()
                raise
            else:
                return connection

    def release(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end, close it otherwise."""
        if connection.is_reusable:
            connection.used, connection.idle_since = True, asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().transport.close()

    def _take_idle(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    async def _connect(self) -> Connection:
        tls = (self.tls or ssl.create_default_context()) if self._url.scheme == "https" else None
        async with asyncio.timeout(self._connect_timeout_s):
            if self._proxy is None:
                return await _connected(self._host, self._port, tls)
            connection = await _connected(str(self._proxy.hostname), self._proxy.port or 80, None)
            return await self._tunnelled(connection, tls) if tls else connection

    async def _tunnelled(self, connection: Connection, tls: ssl.SSLContext) -> Connection:
        place = f"{self._host}:{self._port}"
        connection.post(f"CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n{self._authorization()}\r\n".encode(), b"")
        try:
            await connection.head()
            if connection.status != 200:
                raise OSError(f"the proxy refuses the connection with status {connection.status}")
            loop = asyncio.get_running_loop()
            made = await loop.start_tls(connection.transport, connection, tls, server_hostname=self._host)
            assert made is not None
            connection.connection_made(made)
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    def _request_head(self, headers: Mapping[str, str]) -> bytes:
        url = self._url
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        through = f"http://{self._host}:{self._port}" if self._proxy and url.scheme == "http" else ""
        default = self._port == DEFAULT_PORTS[url.scheme]
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"POST {through}{target} HTTP/1.1", f"host: {host}{'' if default else f':{self._port}'}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any(not line.isprintable() for line in lines):
            raise ValueError("a header, or the address, has a line break in it")
        return ("\r\n".join(lines) + "\r\n" + (self._authorization() if through else "")).encode("latin-1")

    def _authorization(self) -> str:
        """Return the header line for a proxy that asks who we are."""
        if self._proxy is None or self._proxy.username is None:
            return ""
        who = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return f"proxy-authorization: Basic {base64.b64encode(who.encode()).decode()}\r\n"


async def _connected(host: str, port: int, tls: ssl.SSLContext | None) -> Connection:
    """Connect to the first of a host's addresses that answers, each having a quarter of a second's start."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    reached = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=0.25)
    try:
        name = host if tls else None
        _, connection = await loop.create_connection(Connection, sock=reached, ssl=tls, server_hostname=name)
    except BaseException:
        if not isinstance(loop, asyncio.BaseEventLoop):
            # uvloop closes the descriptor behind the socket's back, which would close the next one of that number.
            reached.detach()
        raise
    return connection


def proxy_of(url: SplitResult) -> SplitResult | None:
    """Return the proxy that the environment names for an address.

    Raises:
        ValueError: It is of a kind that is not supported.
    """
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or proxy_bypass(url.netloc.rpartition("@")[2]):
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise ValueError(f"the proxy {proxy.scheme}://{proxy.hostname} is not supported; only http:// proxies are")
    return proxy
