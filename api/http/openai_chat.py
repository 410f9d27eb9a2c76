"""``POST /v1/chat/completions``: the pipeline for clients of OpenAI's API, streamed or as one object.

The last message is the question, those of user and assistant before it are the conversation; instructions in ``system``
messages, and sampling parameters, have no effect. Beside what OpenAI's API has, the answer tells its ``sources``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec import Meta

from api.http.callers import RATED, Caller
from api.http.chat import MAX_MESSAGE_CHARS, WholeAnswer, started
from api.http.openai_errors import OPENAI_HANDLERS, error, failure, in_openai_form
from api.http.problems import AnyRequest, bad_field, failed, refuse
from api.http.sse import EventStream, Reader
from api.replay import Batches, Elsewhere
from api.runs import Runs, new_run
from api.settings import Settings
from api.storage.runs import HISTORY_TURNS, StoredRun
from pipeline.ending import Outcome
from pipeline.ports import Message
from pipeline.text import clean

MODEL = "stagecast"
MAX_BODY_BYTES = 1024 * 1024
"""Of a whole request, with the conversation in it."""
MAX_MESSAGES = 1_000
MAX_TURN_CHARS = 20_000
"""Of a message of the conversation; the rest is left out."""
FINISH_REASONS = {"stop", "length", "content_filter"}
"""Those that OpenAI's clients know, and that need nothing else said; any other reason is a ``stop`` to them."""
ASK_NO_MORE = {"x-should-retry": "false"}
"""OpenAI's packages would send what was answered with 500 or more again, twice."""
DONE = b"data: [DONE]\n\n"


class Part(msgspec.Struct):
    """A part of a message; ``text`` is of those of type ``text``, the only ones that are understood."""

    type: str
    text: str = ""


class ChatMessage(msgspec.Struct):
    """A message of the conversation, or the question."""

    role: str
    content: str | list[Part] | None = None

    def said(self, field: str) -> str:
        """Return its text."""
        if isinstance(self.content, str) or self.content is None:
            return clean(self.content or "").strip()
        if strange := [part.type for part in self.content if part.type != "text"]:
            raise bad_field(field, f"parts of type `text` are understood, not {strange[0][:50]!r}")
        return clean("\n".join(part.text for part in self.content)).strip()


class StreamOptions(msgspec.Struct):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class CompletionRequest(msgspec.Struct):
    """A request for a chat completion; further fields of OpenAI's API are taken and have no effect."""

    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream tells how many tokens there were."""
        return self.stream_options is not None and self.stream_options.include_usage


@post(
    "/v1/chat/completions",
    status_code=200,
    request_max_body_size=MAX_BODY_BYTES,
    exception_handlers=OPENAI_HANDLERS,
    responses={200: ResponseSpec(dict[str, Any], generate_examples=False, description="As chunks, or as one object.")},
    **RATED,
)
async def complete(
    *,
    data: JSONBody[CompletionRequest],
    request: AnyRequest,
    runs: NamedDependency[Runs],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
) -> Response[Any]:
    """Answer the last message."""
    check_model(data.model, MODEL)
    if data.n not in {None, 1}:
        raise bad_field("n", "one answer is given, not several")
    run = new_run(caller.owner, _question(data), None, {})
    run.history = _history(data)
    await started(runs, run, request)
    if not data.stream:
        return WholeAnswer(runs, caller.owner, run.id, lambda stored: _whole(stored, request))
    chunks = Chunks(runs, caller.owner, include_usage=data.include_usage)
    notices = {"joined": runs.join, "left": runs.leave}
    return EventStream(
        Reader(chunks, run.id, after=0, heartbeat_s=settings.heartbeat_s, permitted=caller.still_permitted, **notices)
    )


def check_model(asked: str, *known: str) -> None:
    """Refuse a model that there is not."""
    if asked not in known:
        raise refuse(
            404,
            f"There is no model {asked[:100]!r} here; there is {known[0]!r}.",
            code="model_not_found",
            errors=[{"field": "model", "message": "it is not known"}],
        )


def _question(data: CompletionRequest) -> str:
    last, field = data.messages[-1], f"messages[{len(data.messages) - 1}]"
    if last.role != "user":
        raise bad_field(field, f"the last message is the question, and the user's; its role is {last.role[:50]!r}")
    question = last.said(field)
    if not 1 <= len(question) <= MAX_MESSAGE_CHARS:
        found = f"it has {len(question):,}" if question else "it is empty"
        raise bad_field(field, f"1 to {MAX_MESSAGE_CHARS:,} characters after trimming; {found}")
    return question


def _history(data: CompletionRequest) -> list[Message]:
    said = [
        Message(message.role, message.said(f"messages[{n}]")[:MAX_TURN_CHARS])
        for n, message in enumerate(data.messages[:-1])
        if message.role in {"user", "assistant"}
    ]
    return [turn for turn in said if turn.content][-HISTORY_TURNS:]


def _whole(stored: StoredRun, request: AnyRequest) -> Response[Any]:
    outcome = stored.outcome
    if outcome.error:
        refused = in_openai_form(failed(outcome.error, stored.run_id).to_response(request))
        refused.headers |= {} if outcome.error.retryable else ASK_NO_MORE
        return refused
    if outcome.status == "cancelled":
        return Response(_stopped(), status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers=ASK_NO_MORE)
    message = {"role": "assistant", "content": outcome.answer, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(outcome)}
    head = _head(stored.run_id, "chat.completion")
    return Response(head | {"choices": [choice], "usage": _usage(outcome), "sources": outcome.sources})


def _head(run_id: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{run_id}", "object": kind, "created": int(time.time()), "model": MODEL}


def _reason(outcome: Outcome) -> str:
    return outcome.finish_reason if outcome.finish_reason in FINISH_REASONS else "stop"


def _usage(outcome: Outcome) -> dict[str, int] | None:
    """Return what the model counted; None when it did not."""
    asked, said = outcome.prompt_tokens, outcome.completion_tokens
    if asked is None or said is None:
        return None
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _stopped() -> dict[str, Any]:
    return error("The answer was stopped.", HTTPStatus.SERVICE_UNAVAILABLE, "cancelled")


class Told(msgspec.Struct):
    """An event of a run, as it lies in the log."""

    type: str
    content: msgspec.Raw


class ToldSources(msgspec.Struct):
    """The content of the event ``sources``."""

    sources: msgspec.Raw


class Chunks(Batches):
    """A run's events as the chunks of OpenAI's streams.

    The first has the role and the run's sources, then each has a token. A run that fails ends with an error instead of
    ``[DONE]``.
    """

    def __init__(self, runs: Runs, owner: str, *, include_usage: bool) -> None:
        self._runs = runs
        self._owner = owner
        self._include_usage = include_usage
        self._is_begun = False

    async def read(self, run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the chunks that are there, in batches; end after the last."""
        head = msgspec.json.encode(_head(run_id, "chat.completion.chunk"))[:-1]
        concluded = asyncio.ensure_future(self._runs.concluded(self._owner, run_id))
        try:
            async with aclosing(self._runs.bus.read(run_id, after)) as batches:
                async for frames in batches:
                    if chunks := [chunk for frame in frames for chunk in self._chunks(head, frame)]:
                        yield chunks
            yield self._last(head, (await concluded).outcome)
        except Elsewhere as gone:
            yield [_data(msgspec.json.encode(error(str(gone), HTTPStatus.SERVICE_UNAVAILABLE)))]
        finally:
            concluded.cancel()

    def _chunks(self, head: bytes, frame: bytes) -> Iterator[bytes]:
        told = msgspec.json.decode(frame[frame.index(b"data: ") + 6 :], type=Told)
        if told.type == "sources":
            yield self._first(head, bytes(msgspec.json.decode(told.content, type=ToldSources).sources))
        elif told.type == "token":
            if not self._is_begun:  # a pipeline without sources
                yield self._first(head, b"[]")
            yield _chunk(head, b'{"content":%b}' % bytes(told.content))

    def _first(self, head: bytes, sources: bytes) -> bytes:
        self._is_begun = True
        return _chunk(head, b'{"role":"assistant","content":""}', more=b',"sources":%b' % sources)

    def _last(self, head: bytes, outcome: Outcome) -> list[bytes]:
        if outcome.error:
            return [_data(msgspec.json.encode(failure(outcome.error)))]
        if outcome.status == "cancelled":
            return [_data(msgspec.json.encode(_stopped()))]
        ends = [_chunk(head, b"{}", msgspec.json.encode(_reason(outcome)))]
        if self._include_usage:
            ends.append(_data(b'%b,"choices":[],"usage":%b}' % (head, msgspec.json.encode(_usage(outcome)))))
        return [*ends, DONE]


def _chunk(head: bytes, delta: bytes, reason: bytes = b"null", more: bytes = b"") -> bytes:
    choice = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}' % (delta, reason)
    return _data(b'%b,"choices":[%b]%b}' % (head, choice, more))


def _data(body: bytes) -> bytes:
    return b"data: %b\n\n" % body
