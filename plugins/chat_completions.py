"""A client of OpenAI's protocol for chat completions, which reads tokens at a small part of what an SDK costs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any

import httpx
import msgspec

from pipeline.errors import GenerationFailed, UpstreamTruncated
from pipeline.ports import Finish, Prompt
from pipeline.retries import TryAgain, refused, until_answered
from pipeline.tracing import trace_headers
from plugins.http_stream import BadResponse, Connection, HttpStream

CONNECT_TIMEOUT_S = 4.5
"""Finding the address, connecting and TLS, together; two attempts fit into the time that retries may take."""
END_S = 0.05
"""How long the end of the body may come behind the last event; a connection that has seen it is used again."""
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""As much as a whole run may send."""

LAST_BYTES = 16
"""The last event is no longer, spaces included."""

HEADERS = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Content-Type": "application/json"}
"""Compressed, a stream may come late."""

INSECURE = "The connection to the language model could not be secured."
UNREACHABLE = "The language model could not be reached."
UNREADABLE = "The language model's answer could not be read."

TOO_LONG = "The question and its passages are too long for the language model."
NOT_PERMITTED = "The language model's provider refused to answer this."
_BY_SIGN = {
    "context_length_exceeded": TOO_LONG,
    "maximum context length": TOO_LONG,
    "content_filter": NOT_PERMITTED,
    "content_policy_violation": NOT_PERMITTED,
}
"""What providers' words in the body of a refusal mean."""


class Delta(msgspec.Struct):
    """What is new of the answer."""

    content: str | None = None


class Choice(msgspec.Struct):
    """One of the answers; a single one is asked for."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """What the provider counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct):
    """An event of the stream; other fields are passed over."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.Encoder().encode


class ChunkReader:
    """Cuts a body, as it comes, into events, and keeps what is known of the end."""

    def __init__(self) -> None:
        self.finish = Finish("")
        self.ended = False
        """Whether the last event, ``[DONE]``, has come, or nothing more can be read."""
        self._line: list[bytes] = []
        self._line_bytes = 0

        self.broken: GenerationFailed | None = None
        """Why nothing more can be read: an event told of an error, was malformed, or above ``MAX_EVENT_BYTES``."""

    def feed(self, received: bytes) -> list[str]:
        """Return the pieces of text that are whole now, those before a broken event included."""
        *lines, rest = received.split(b"\n")
        if lines and self._line:
            lines[0] = b"".join((*self._line, lines[0]))
            self._line, self._line_bytes = [], 0
        pieces: list[str] = []
        try:
            for line in lines:
                piece = self._read(line[5:]) if line.startswith(b"data:") else ""
                if piece:
                    pieces.append(piece)
            if rest:
                self._keep(rest)
        except GenerationFailed as failure:
            self.broken, self.ended = failure, True
        return pieces

    def _keep(self, rest: bytes) -> None:
        self._line.append(rest)
        self._line_bytes += len(rest)
        if self._line_bytes > MAX_EVENT_BYTES:
            raise GenerationFailed(UNREADABLE)

    def _read(self, event: bytes) -> str:
        if len(event) <= LAST_BYTES and event.strip() == b"[DONE]":
            self.ended = True
            return ""
        try:
            chunk = _decode(event)
        except (msgspec.DecodeError, UnicodeDecodeError):
            chunk = _decoded_loosely(event)
        if chunk.error:
            raise GenerationFailed("The language model failed.")
        choice = chunk.choices[0] if chunk.choices else None
        if chunk.usage or (choice and choice.finish_reason):
            self._note_end(choice, chunk.usage or Usage())
        return (choice and choice.delta and choice.delta.content) or ""

    def _note_end(self, choice: Choice | None, usage: Usage) -> None:
        known = self.finish
        self.finish = Finish(
            (choice and choice.finish_reason) or known.reason,
            usage.prompt_tokens if usage.prompt_tokens is not None else known.prompt_tokens,
            usage.completion_tokens if usage.completion_tokens is not None else known.completion_tokens,
        )


def _decoded_loosely(event: bytes) -> Chunk:
    """Return an event with half a surrogate pair in it, which is no JSON to msgspec."""
    try:
        return msgspec.convert(json.loads(event), Chunk)
    except (ValueError, RecursionError) as malformed:
        raise GenerationFailed(UNREADABLE) from malformed


class ChatCompletions:
    """Asks one model at one address; ``body`` is all of the request but the messages.

    Raises:
        ValueError: The address is none.
    """

    def __init__(self, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> None:
        self.url = url
        self.headers = HEADERS | dict(headers)
        self.body = dict(body)
        self._server = HttpStream(url, self.headers, CONNECT_TIMEOUT_S)

    def load_certificates(self) -> None:
        """Load what the first question would else wait for: 20 to 50 ms of CPU."""
        self._server.tls = httpx.create_ssl_context()

    async def close(self) -> None:
        """Close all connections."""
        self._server.close()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[list[str] | Finish]:
        """Yield the model's text as it comes; the connection is closed when the reader leaves.

        Raises:
            GenerationFailed: The model refused, failed, or could not be reached; what may pass is tried again before
                the first piece.
            UpstreamTruncated: The stream ended without a reason.
        """
        body = _encode({**self.body, "messages": prompt.messages})
        response, reader, pieces = await until_answered(lambda: self._begun(body))
        try:
            while pieces:
                yield pieces
                pieces = []
                while not (pieces or reader.ended):
                    if received := response.taken():
                        pieces = reader.feed(received)
                    elif response.is_whole:
                        break
                    else:
                        await response.news()
            if reader.broken:
                raise reader.broken
            await _reach_end(response)
        except (BadResponse, ssl.SSLError) as problem:
            raise _explained(problem) from problem
        except OSError as problem:
            raise UpstreamTruncated from problem
        finally:
            self._server.release(response)
        if not reader.finish.reason:
            raise UpstreamTruncated
        yield reader.finish

    async def _begun(self, body: bytes) -> tuple[Connection, ChunkReader, list[str]]:
        """Ask, and return once the first pieces are there, or the end."""
        reader, pieces = ChunkReader(), list[str]()
        try:
            response = await self._server.post(body, trace_headers.get())
            try:
                await _check(response)
                while not (pieces or reader.ended) and (received := await response.read()):
                    pieces = reader.feed(received)
                if not pieces and not reader.finish.reason:
                    raise reader.broken or TryAgain(UpstreamTruncated())
            except BaseException:
                self._server.release(response)
                raise
        except (BadResponse, ssl.SSLError) as problem:
            raise _explained(problem) from problem
        except OSError as problem:
            raise TryAgain(GenerationFailed(UNREACHABLE)) from problem
        return response, reader, pieces


async def _check(response: Connection) -> None:
    """Raise what a response that is no answer means; only its error's code says what a status 400 means."""
    if response.status == 200:
        if response.headers.get(b"content-encoding", b"identity") != b"identity":
            raise BadResponse("compressed, against what was asked")
        return
    if response.status in (400, 413):
        said = (await response.read()).decode(errors="replace").lower()
        for sign, meaning in _BY_SIGN.items():
            if sign in said:
                raise GenerationFailed(meaning, retryable=False)
    raise refused(response.status, response.headers.get(b"retry-after", b"").decode("latin-1"))


async def _reach_end(response: Connection) -> None:
    """Read what comes behind the last event, which is of no matter to the answer."""
    with suppress(OSError, BadResponse):  # a TimeoutError is an OSError
        async with asyncio.timeout(END_S):
            while await response.read():
                pass


def _explained(problem: BadResponse | ssl.SSLError) -> GenerationFailed:
    if isinstance(problem, ssl.SSLError):
        return GenerationFailed(INSECURE, retryable=False)
    return GenerationFailed(UNREADABLE)
