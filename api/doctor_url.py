"""What ``stagecast doctor --url`` looks at: a server as a client meets it, proxies on the way included."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

import httpx
import msgspec

from api.doctor import Finding
from pipeline.text import clean

LAST_SEEN = 2
"""The event that the probe is asked to go on behind."""
AT_ONCE_S = 0.3
"""Events that were sent over a second and come within so long were held back on the way."""
LATE_S = 0.5
"""As late, more than the one that came soonest."""
LARGE_BYTES = 2 * 1024 * 1024
"""Of a request; what proxies allow by default is 1 MB."""
CONNECT_S = 5.0
ANSWER_S = 15.0
EVENT = re.compile(rb"id: (\d+)\ndata: (.*)\n")
EVENT_STREAM = "text/event-stream"
NOT_OURS = "the address is not that of a Stagecast server, or the proxy leads elsewhere"

NGINX_STREAMS = "in nginx `proxy_buffering off;`, and no proxy_ignore_headers for X-Accel-Buffering"


class Arrived(msgspec.Struct, frozen=True):
    """An event of the probe: its number, and when it was sent and came, in seconds since the epoch."""

    number: int
    sent: float
    came: float


class Probe(msgspec.Struct):
    """What came of the probe."""

    headers: httpx.Headers
    events: list[Arrived]
    count: int = 0
    """Of the last event."""
    silence_s: float = 0.0
    lasted_s: float = 0.0
    broken: str = ""
    """How it ended before its last event."""


async def over(url: str, key: str | None) -> AsyncGenerator[Finding]:
    """Yield what is found of the server at an address, asked with one of its keys where it needs one."""
    if key and not (key.isascii() and key.isprintable()):
        yield Finding("key", "bad", "the key has characters that no key of a server has", "copy it anew")
        return
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
    try:
        client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)
    except (httpx.InvalidURL, ValueError) as problem:
        yield Finding("server", "bad", f"{url!r} is no address: {problem}", "write it as http://localhost:8000")
        return
    async with client:
        for look in (_alive, _ready, _key):
            found = await _looked(look, client)
            yield found
            if found.state == "bad" and look is not _ready:
                return
        yield await _large(client)
        probe = await _probed(client)
    for finding in judged(probe):
        yield finding


async def _looked(look: Callable[[httpx.AsyncClient], Awaitable[Finding]], client: httpx.AsyncClient) -> Finding:
    try:
        return await look(client)
    except httpx.HTTPError as problem:
        said = f"no answer from {client.base_url}: {type(problem).__name__} {problem}".rstrip()
        return Finding("server", "bad", said, "start it, or correct the address; a proxy may not reach it in time")


async def _alive(client: httpx.AsyncClient) -> Finding:
    response = await client.get("/health")
    try:
        version = response.json()["version"]
    except (ValueError, KeyError, TypeError):
        said = f"/health answers {response.status_code} {_begin(response)!r}"
        remedy = "a proxy may not reach the server behind it" if response.status_code in {502, 503, 504} else NOT_OURS
        detail = _detail(response)
        return Finding("server", "bad", detail or said, _host_remedy(detail) or remedy)
    return Finding("server", "good", f"Stagecast {version}")


async def _ready(client: httpx.AsyncClient) -> Finding:
    response = await client.get("/health/ready")
    if response.is_success:
        return Finding("ready", "good", "questions can be answered")
    said = _detail(response) or f"/health/ready answers {response.status_code}"
    remedy = "wait for its start, or look into its log; `stagecast doctor` on its machine says more"
    return Finding("ready", "bad", said, remedy)


async def _key(client: httpx.AsyncClient) -> Finding:
    response = await client.get("/plugins")
    if response.is_success:
        needed = "accepted" if "authorization" in client.headers else "none is needed"
        return Finding("key", "good", needed)
    said = _detail(response) or f"/plugins answers {response.status_code}"
    remedy = "give one of the server's keys with --key" if response.status_code == httpx.codes.UNAUTHORIZED else ""
    if remedy and "authorization" in client.headers and "is needed" in said:
        remedy = "the proxy takes the header Authorization away; in nginx no `proxy_set_header Authorization`"
    return Finding("key", "bad", said, remedy)


async def _large(client: httpx.AsyncClient) -> Finding:
    """Send a large request that the server refuses, and see who refuses it."""
    content = b'{"query": "' + b" " * LARGE_BYTES + b'"}'
    size = f"a request of {LARGE_BYTES // 1024**2} MB"
    remedy = "in nginx `client_max_body_size 200m;`, as much as STAGECAST_MAX_UPLOAD_MB"
    try:
        response = await client.post("/search", content=content, headers={"Content-Type": "application/json"})
    except httpx.HTTPError as problem:
        return Finding("uploads", "bad", f"{size} is cut: {type(problem).__name__}", remedy)
    if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE and not _detail(response):
        return Finding("uploads", "bad", f"{size} is refused on the way, so larger files cannot be uploaded", remedy)
    return Finding("uploads", "good", f"{size} reaches the server")


async def _probed(client: httpx.AsyncClient) -> Probe:
    headers = {"Last-Event-ID": str(LAST_SEEN), "Accept": EVENT_STREAM}
    begun = time.monotonic()
    probe = Probe(httpx.Headers(), [])
    try:
        async with client.stream("GET", "/health/probe", headers=headers, timeout=httpx.Timeout(60)) as response:
            probe.headers = response.headers
            rest = b""
            async for chunk in response.aiter_bytes():
                rest = _take(probe, rest + chunk)
                probe.lasted_s = time.monotonic() - begun
    except httpx.HTTPError as problem:
        probe.broken = type(problem).__name__
    probe.lasted_s = time.monotonic() - begun
    return probe


def _take(probe: Probe, received: bytes) -> bytes:
    """Note the events that are whole, and return the rest."""
    came, end = time.time(), 0
    for found in EVENT.finditer(received):
        event, end = msgspec.json.decode(found[2]), found.end()
        sent = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=UTC).timestamp()
        probe.events.append(Arrived(int(found[1]), sent, came))
        probe.count, probe.silence_s = event["content"]["events"], event["content"]["silence_s"]
    return received[end:]


def judged(probe: Probe) -> list[Finding]:
    """Say what the probe's events tell of what is between server and client."""
    kind = probe.headers.get("content-type", "none").partition(";")[0]
    if not probe.events:
        return [Finding("stream", "bad", f"no event came: {probe.broken or 'content type ' + kind}", NOT_OURS)]
    return [_headers(probe, kind), _paced(probe.events), _resumed(probe.events), _silent(probe)]


def _headers(probe: Probe, kind: str) -> Finding:
    faults = []
    if kind != EVENT_STREAM:
        faults.append(f"Content-Type is {kind!r}, not {EVENT_STREAM!r}")
    if "no-cache" not in probe.headers.get("cache-control", ""):
        faults.append("Cache-Control: no-cache is missing, so the stream may be cached")
    if faults:
        return Finding("headers", "bad", "; ".join(faults), "let the proxy pass the server's headers on as they are")
    zipped = probe.headers.get("content-encoding")
    return Finding(
        "headers", "good", f"as the server sends them{f', compressed on the way ({zipped})' if zipped else ''}"
    )


def _paced(events: Sequence[Arrived]) -> Finding:
    """Compare when events were sent and came; the clocks of both sides may differ."""
    steady = events[:-1] or events
    sent_s, came_s = (max(times) - min(times) for times in ([e.sent for e in steady], [e.came for e in steady]))
    late_s = max(event.came - event.sent for event in steady) - min(event.came - event.sent for event in steady)
    if sent_s - came_s > AT_ONCE_S and late_s > LATE_S:
        said = (
            f"{len(steady)} events, sent within {sent_s:.2f} s, came within {came_s:.2f} s: something holds them back"
        )
        return Finding("buffering", "bad", said, f"let the proxy pass events on at once: {NGINX_STREAMS}")
    return Finding(
        "buffering", "good", f"{len(steady)} events came as they were sent, at most {late_s * 1000:.0f} ms late"
    )


def _resumed(events: Sequence[Arrived]) -> Finding:
    if events[0].number == LAST_SEEN + 1:
        return Finding("resuming", "good", "the header Last-Event-ID reaches the server")
    said = "the header Last-Event-ID does not reach the server, so a stream that breaks begins anew"
    return Finding("resuming", "bad", said, "let the proxy pass request headers on, or resume with ?after=N")


def _silent(probe: Probe) -> Finding:
    if probe.events[-1].number == probe.count:
        return Finding("silence", "good", f"a stream is kept through {probe.silence_s:.0f} s with one heartbeat")
    said = f"the stream was cut {probe.lasted_s:.0f} s after it began, while it waited for the next event"
    remedy = "raise the proxy's limit on silence (in nginx `proxy_read_timeout 1h;`), or lower STAGECAST_HEARTBEAT_S"
    return Finding("silence", "bad", said, remedy)


def _detail(response: httpx.Response) -> str:
    """Return what our own refusals say, "" of anybody else's."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return ""
    try:
        return clean(str(response.json()["detail"]))
    except (ValueError, KeyError, TypeError):
        return ""


def _host_remedy(detail: str) -> str:
    return "add the name to STAGECAST_ALLOWED_HOSTS" if "host" in detail.lower() else ""


def _begin(response: httpx.Response) -> str:
    return " ".join(clean(response.text).split())[:80]
