"""The frames that every server here sends: ``{"type", "content", "timestamp"}``, one a token, ``done`` at the end."""

import json
import time
from datetime import UTC, datetime

import msgspec

HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache"}

_moment = (0, b"")


class Question(msgspec.Struct):
    """The body of ``POST /chat``."""

    message: str


def event(kind, content):
    """Return an event's JSON, made as applications make it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": kind, "content": content, "timestamp": now}, separators=(",", ":"))


def timestamp():
    """Return the time as bytes; it is formatted once a millisecond at most."""
    global _moment  # noqa: PLW0603  # one a process, and a call costs more than the frame
    ms = time.time_ns() // 1_000_000
    if ms != _moment[0]:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)).encode()
        _moment = ms, b"%b.%03dZ" % (second, ms % 1000)
    return _moment[1]


def token_frame(json_text):
    """Return a token's frame; ``json_text`` is the token as JSON, quotes included."""
    return b'data: {"type":"token","content":%b,"timestamp":"%b"}\n\n' % (json_text, timestamp())


def done_frame():
    return b'data: {"type":"done","content":{},"timestamp":"%b"}\n\n' % timestamp()
