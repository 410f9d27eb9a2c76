"""Connections to a server that streams: real sockets, a server that answers byte for byte what it is told."""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
from pathlib import Path

import aiohappyeyeballs
import pytest

from plugins.http_stream import MAX_HEAD_BYTES, MAX_WAITING_BYTES, BadResponse, Disconnected, HttpStream

pytestmark = pytest.mark.both_loops
CERTIFICATE = Path(__file__).parent.parent / "faults" / "untrusted.pem"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
MEASURED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\n\r\nabcde"
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabcde"


class Server:
    """Answers the n-th request with the n-th answer; closes behind one that is a pair with False."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.connections = 0
        self._open = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/x"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader, writer):
        self.connections += 1
        self._open.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or b"0")
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                answer, keep = answer if isinstance(answer, tuple) else (answer, True)
                writer.write(answer)
                await writer.drain()
                if not keep:
                    break
        writer.close()


@pytest.fixture
def server_of(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return Server


@pytest.fixture
async def stream_to():
    made = []

    def make(url, headers=None):
        made.append(HttpStream(url, headers or {}, 5))
        return made[-1]

    yield make
    for stream in made:
        stream.close()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def posted(stream, body=b""):
    response = await stream.post(body)
    try:
        yield response
    finally:
        stream.release(response)


async def whole(stream, body=b"{}"):
    async with posted(stream, body) as response:
        received = b""
        while piece := await response.read():
            received += piece
        return response.status, received


@pytest.mark.parametrize(
    "answer", [CHUNKED, MEASURED, (UNTIL_THE_END, False), b"HTTP/1.1 100 Continue\r\n\r\n" + MEASURED]
)
async def test_a_body_is_read_to_its_end_however_that_is_told(server_of, answer, stream_to):
    async with server_of(answer) as server:
        assert await whole(stream_to(server.url, {"a": "b"}), b'{"x": 1}') == (200, b"abcde")
    [request] = server.requests
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\na: b\r\n" % server.port)
    assert request.endswith(b'content-length: 8\r\n\r\n{"x": 1}')


async def test_a_connection_is_used_again_when_an_answer_was_read_to_its_end(server_of, stream_to):
    async with server_of(CHUNKED, MEASURED, CHUNKED, MEASURED) as server:
        stream = stream_to(server.url)
        for _ in range(3):
            await whole(stream)
        assert server.connections == 1
        await asyncio.gather(whole(stream))


@pytest.mark.parametrize("farewell", [b"Connection: close\r\n", b""])
async def test_a_connection_that_the_server_closes_is_not_used_again(server_of, farewell, stream_to):
    last = MEASURED.replace(b"OK\r\n", b"OK\r\n" + farewell)
    async with server_of(last, MEASURED) as server:
        stream = stream_to(server.url)
        await whole(stream)
        if not farewell:
            server._open[0].transport.abort()  # the close meets the next request on its way
        assert await whole(stream) == (200, b"abcde")
        assert server.connections == 2


async def test_an_answer_that_is_left_closes_its_connection(server_of, stream_to):
    async with server_of(CUT) as server:
        async with posted(stream_to(server.url)) as response:
            assert await response.read() == b"abcde"
        assert response.transport.is_closing()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((CUT, False), Disconnected),
        ((CHUNKED[:-5], False), Disconnected),
        ((b"", False), Disconnected),
        ((b"HTTP/1.1 200 OK\r\nconte", False), Disconnected),
        (b"What?\r\n\r\n", BadResponse),
        (CHUNKED.replace(b"\r\n2\r\n", b"\r\nno\r\n"), BadResponse),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 4), BadResponse),
    ],
    ids=["cut", "cut chunks", "nothing", "half a head", "no HTTP", "no chunk", "endless head"],
)
async def test_an_answer_without_its_end_is_told_as_such(server_of, answer, problem, stream_to):
    async with server_of(answer) as server:
        with pytest.raises(problem):
            await whole(stream_to(server.url))
    assert server.connections == 1


async def test_a_second_answer_to_one_request_is_not_mistaken_for_the_next(server_of, stream_to):
    async with server_of(MEASURED + MEASURED.replace(b"abcde", b"other"), MEASURED) as server:
        stream = stream_to(server.url)
        for _ in range(2):
            assert await whole(stream) == (200, b"abcde")
        assert server.connections == 2


async def test_a_slow_reader_holds_the_server_up_and_gets_everything(server_of, stream_to):
    size = 30 * MAX_WAITING_BYTES
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, b"x" * size)
    async with server_of(answer) as server, posted(stream_to(server.url)) as response:
        await asyncio.sleep(0.3)
        received = len(await response.read())
        assert received < 3 * MAX_WAITING_BYTES
        while piece := await response.read():
            received += len(piece)
    assert received == size


@pytest.mark.parametrize(
    ("url", "headers"), [("ftp://x", {}), ("http://", {}), ("x", {}), ("http://x", {"a": "b\r\nc: d"})]
)
def test_an_address_or_a_header_that_is_none_is_refused(url, headers):
    with pytest.raises(ValueError, match="address"):
        HttpStream(url, headers, 5)


async def test_a_proxy_of_the_environment_is_asked_for_the_whole_address(server_of, monkeypatch, stream_to):
    async with server_of(MEASURED) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        assert await whole(stream_to("http://far.example/v1")) == (200, b"abcde")
    assert proxy.requests[0].startswith(b"POST http://far.example:80/v1 HTTP/1.1\r\nhost: far.example\r\n")
    assert b"\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n" in proxy.requests[0]


async def test_a_host_that_the_environment_excepts_is_asked_without_the_proxy(server_of, monkeypatch, stream_to):
    async with server_of(MEASURED) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await whole(stream_to(server.url)) == (200, b"abcde")


async def test_a_proxy_of_another_kind_is_refused_by_name(server_of, monkeypatch, stream_to):
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ValueError, match="socks5"):
        stream_to("https://far.example/v1")


class Tunnel:
    """A proxy that connects whoever asks to one port, or refuses."""

    def __init__(self, port, answer=b"HTTP/1.1 200 Connection established\r\n\r\n"):
        self._target = port
        self._answer = answer
        self.asked = b""
        self._open = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader, writer):
        self._open.append(writer)
        self.asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        if b" 200 " in self._answer:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(copied(reader, far_writer), copied(far_reader, writer))
        writer.close()


async def copied(reader, writer):
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            writer.write(piece)
        writer.close()


def contexts():
    """Return the TLS of a server, and of a client that trusts it."""
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(CERTIFICATE)
    client.load_verify_locations(CERTIFICATE)
    client.check_hostname = False
    return server, client


async def test_through_a_proxy_tls_goes_to_the_server_itself(monkeypatch, server_of, stream_to):
    theirs, ours = contexts()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED)

    far_end = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=theirs)
    async with far_end, Tunnel(far_end.sockets[0].getsockname()[1]) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        stream = stream_to("https://far.example/v1")
        stream.tls = ours
        assert await whole(stream) == (200, b"abcde")
        assert proxy.asked.startswith(b"CONNECT far.example:443 HTTP/1.1\r\nhost: far.example:443\r\n")


async def test_a_server_that_resets_within_the_handshake_costs_no_other_connection(stream_to, monkeypatch):
    listening = socket.create_server(("127.0.0.1", 0))
    connect = aiohappyeyeballs.start_connection

    async def connected_and_reset(*args, **kwargs):
        connected = await connect(*args, **kwargs)
        accepted, _ = listening.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        return connected

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connected_and_reset)
    stream = stream_to(f"https://127.0.0.1:{listening.getsockname()[1]}/v1/x")
    failures = []
    for _ in range(10):
        with pytest.raises(ConnectionResetError) as failure:
            await whole(stream)
        failures.append(failure)  # and with it, in its frames, the socket
    others = [socket.socketpair() for _ in range(20)]
    failures.clear()
    del failure
    gc.collect()
    for near, far in others:
        near.send(b"x")
        assert far.recv(1) == b"x"
        near.close()
        far.close()
    listening.close()


async def test_a_proxy_that_refuses_is_a_server_that_cannot_be_reached(monkeypatch, server_of, stream_to):
    async with Tunnel(1, b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(OSError, match="407"):
            await whole(stream_to("https://far.example/v1"))
