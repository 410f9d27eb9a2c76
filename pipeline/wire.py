"""The bytes in which a run's events reach a client: Server-Sent Events with a number and a timestamp each."""

from __future__ import annotations

import re
import time

import msgspec

from pipeline.errors import Code
from pipeline.events import Error, Event, type_of

MAX_FRAME_BYTES = 64 * 1024
"""Larger writes would be held whole in memory for every reader that lags."""


RETRY = b"retry: 1000\n"
"""Tells a browser, in ms, when to come back to a server that restarts."""

_encode = msgspec.json.Encoder().encode
_LONGEST_ESCAPE = 6
"""Bytes of a character."""
_SHORT_CHARS = MAX_FRAME_BYTES // _LONGEST_ESCAPE
"""A text that is no longer fits into a frame whatever it holds."""
_TOKEN = b'id: %d\ndata: {"type":"token","content":%b,"timestamp":"%b"}\n\n'
_LINE_SEPARATOR = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2\x85")
"""U+2028, U+2029, U+0085: no ends of lines to SSE, but to clients that split with ``str.splitlines``, as httpx does."""


def frame(number: int, event: Event, timestamp: bytes) -> bytes:
    """Return the event as one SSE frame: an ``id`` line and one ``data`` line.

    Raises:
        ValueError: The frame exceeds ``MAX_FRAME_BYTES``, or its text holds a lone surrogate.
    """
    body = _encode(event)
    if not body.isascii():
        body = _LINE_SEPARATOR.sub(_escaped, body)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a {type_of(event)} event of {len(body):,} bytes; at most {MAX_FRAME_BYTES:,} are sent")
    retry = RETRY if isinstance(event, Error) and event.content.code is Code.SERVER_RESTART else b""
    return b'%bid: %d\ndata: %b,"timestamp":"%b"}\n\n' % (retry, number, body[:-1], timestamp)


def token_frames(first: int, tokens: list[str], timestamp: bytes) -> list[bytes]:
    """Return the frames of several tokens with numbers from ``first`` on: the same bytes as :func:`frame`, for less.

    Raises:
        ValueError: There are none, one is no text or holds NUL or a lone surrogate, or a frame exceeds
            ``MAX_FRAME_BYTES``.
    """
    if type(tokens) is list and len(tokens) == 1 and _is_plain(tokens[0]):
        return [_TOKEN % (first, _encode(tokens[0]), timestamp)]
    text = _joined(tokens)
    bodies = list(map(_encode, tokens))
    if not text.isascii():
        bodies = [_LINE_SEPARATOR.sub(_escaped, body) for body in bodies]
    if len(text) > _SHORT_CHARS and (longest := max(map(len, bodies))) > MAX_FRAME_BYTES:
        raise ValueError(f"a token event of {longest:,} bytes; at most {MAX_FRAME_BYTES:,} are sent")
    return [_TOKEN % (number, body, timestamp) for number, body in enumerate(bodies, first)]


def _is_plain(token: object) -> bool:
    """Say whether a token is text that needs none of the checks below, as nearly every one is."""
    return type(token) is str and len(token) <= _SHORT_CHARS and token.isascii() and "\0" not in token


def _joined(tokens: list[str]) -> str:
    try:
        text = "".join(tokens) if isinstance(tokens, list) and tokens else "\0"
    except TypeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("a token that is no text")
    if len(text) > MAX_FRAME_BYTES and (longest := max(map(len, tokens))) > MAX_FRAME_BYTES:
        # Said before it is encoded, which takes a copy.
        raise ValueError(f"a token of {longest:,} characters")
    return text


def _escaped(separator: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(separator[0].decode())


class WallClock:
    """The time as it stands in events: UTC, milliseconds, ``Z``; formatted once a millisecond."""

    def __init__(self) -> None:
        self._ms, self._formatted = -1, b""
        self._second, self._prefix = -1, b""

    def now(self) -> bytes:
        """Return for example ``2025-11-06T10:30:40.000Z``."""
        ms = time.time_ns() // 1_000_000
        if ms != self._ms:
            self._ms, self._formatted = ms, self._format(ms)
        return self._formatted

    def _format(self, ms: int) -> bytes:
        second, rest = divmod(ms, 1000)
        if second != self._second:
            self._second, self._prefix = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%b.%03dZ" % (self._prefix, rest)
