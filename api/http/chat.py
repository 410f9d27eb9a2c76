"""``POST /chat``: a question, and its answer as a stream or as one object."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, Parameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Meta

from api.http.callers import RATED, Caller
from api.http.problems import AnyRequest, failed, refuse
from api.http.runs import stream_of
from api.http.schema import StreamOperation
from api.http.sse import gone
from api.runs import Answer, Runs, TooManyOfOwner, TooManyRuns, answer_of, new_run
from api.settings import Settings
from api.storage.runs import KeyTaken, SessionBusy, StoredRun
from pipeline.errors import NobodyWaits
from pipeline.ports import Run
from pipeline.text import clean

MAX_MESSAGE_CHARS = 5_000
MAX_BODY_BYTES = 256 * 1024
"""Of a whole request; a message of the greatest length takes 60 kB when every character of it is escaped."""

SESSION_ID = r"^[A-Za-z0-9._:-]+$(?!\n)"
"""In Python ``$`` also stands before a last line break, which would then be part of the id."""

NO_NUL = r"^[^\x00]*$"
Filters = dict[
    Annotated[str, Meta(max_length=100, pattern=NO_NUL)],
    Annotated[str, Meta(max_length=1000, pattern=NO_NUL)] | int | float | bool,
]
"""PostgreSQL knows no text with a NUL."""


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A question; without ``session_id`` a conversation begins, without ``stream`` the header ``Accept`` decides."""

    message: str
    session_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=SESSION_ID)] | None = None
    stream: bool | None = None
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    """What happens when the last reader leaves: the run stops at once, or goes on for a grace period."""
    if_busy: Literal["reject", "cancel"] = "reject"
    """What happens when the session is answering already: 409, or that run is stopped first."""
    filters: Filters = {}
    """Only passages whose metadata has these values are used."""

    def __post_init__(self) -> None:
        self.message = clean(self.message).strip()
        if not 1 <= len(self.message) <= MAX_MESSAGE_CHARS:
            found = f"it has {len(self.message):,}" if self.message else "it is empty"
            raise ValueError(f"field `message`: 1 to {MAX_MESSAGE_CHARS:,} characters after trimming; {found}")


IdempotencyKey = Annotated[
    str | None,
    Parameter(header="Idempotency-Key", min_length=1, max_length=255, description="The same key, the same run."),
]


@post(
    "/chat",
    status_code=200,
    request_max_body_size=MAX_BODY_BYTES,
    responses={200: ResponseSpec(Answer, generate_examples=False, description="As events, or as one object.")},
    operation_class=StreamOperation,
    **RATED,
)
async def chat(
    *,
    data: JSONBody[ChatRequest],
    request: AnyRequest,
    runs: NamedDependency[Runs],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
    idempotency_key: IdempotencyKey = None,
) -> Response[Any]:
    """Ask a question."""
    streamed = _wants_stream(data, request)
    idempotency = (idempotency_key, _digest(data)) if idempotency_key else None
    run = new_run(caller.owner, data.message, data.session_id, data.filters, idempotency)
    keep, take_over = data.on_disconnect == "continue", data.if_busy == "cancel"
    run_id = await started(runs, run, request, keep=keep, take_over=take_over)
    if streamed:
        return await stream_of(runs, caller, run_id, after=0, heartbeat_s=settings.heartbeat_s)
    return WholeAnswer(runs, caller.owner, run_id, lambda stored: _whole(stored, request))


async def _note_leaving(run: Run, receive: Receive) -> None:
    """A question that waits for the database, and for which nobody waits, need not be asked."""
    await gone(receive)
    run.wanted = False


async def started(runs: Runs, run: Run, request: AnyRequest, *, keep: bool = False, take_over: bool = False) -> str:
    """Start the run, or find the one that this very request has started before; return its id.

    ``keep`` and ``take_over`` are those of :meth:`~api.runs.Runs.start`; whatever it raises is a refusal here.
    """
    watch = None if keep else asyncio.create_task(_note_leaving(run, request.receive))
    try:
        await runs.start(run, keep=keep, take_over=take_over)
    except TooManyRuns as full:
        raise refuse(503, str(full), retry_after_s=1) from None
    except TooManyOfOwner as full:
        raise refuse(429, str(full), retry_after_s=1) from None
    except SessionBusy as busy:
        raise refuse(409, "This session is answering another question.", run_id=busy.run_id) from None
    except NobodyWaits:
        raise refuse(503, "The client left before its question was stored.") from None
    except KeyTaken as taken:
        if not taken.same:
            raise refuse(422, "Idempotency-Key: it was used for another request.", run_id=taken.run_id) from None
        return taken.run_id
    finally:
        if watch:
            watch.cancel()
    return run.id


def _whole(stored: StoredRun, request: AnyRequest) -> Response[Any]:
    if stored.outcome.error:
        return failed(stored.outcome.error, stored.run_id).to_response(request)
    return Response(answer_of(stored), status_code=200)


def _digest(data: ChatRequest) -> bytes:
    return hashlib.sha256(msgspec.json.encode(data, order="deterministic")).digest()


def _wants_stream(data: ChatRequest, request: AnyRequest) -> bool:
    if data.stream is not None:
        return data.stream
    try:
        return request.accept.best_match(["text/event-stream", "application/json"]) != "application/json"
    except (ValueError, OverflowError):  # a weight like "inf"
        return True


class WholeAnswer(Response[None]):
    """Answers with the run when it has ended, as one object or as a refusal: what ``told`` makes of it."""

    def __init__(self, runs: Runs, owner: str, run_id: str, told: Callable[[StoredRun], Response[Any]]) -> None:
        super().__init__(None)
        self._runs = runs
        self._owner = owner
        self._run_id = run_id
        self._told = told

    def to_asgi_response(self, app: Any, request: AnyRequest, **_kwargs: Any) -> ASGIResponse:  # noqa: ARG002  # Litestar's own
        """Return a response that waits while it is being sent: only there is the reader's leaving noticed."""
        return _WholeAnswerASGI(self._runs, self._owner, self._run_id, self._told, request)


class _WholeAnswerASGI(ASGIResponse):
    __slots__ = ("_owner", "_request", "_run_id", "_runs", "_told")

    def __init__(
        self,
        runs: Runs,
        owner: str,
        run_id: str,
        told: Callable[[StoredRun], Response[Any]],
        request: AnyRequest,
    ) -> None:
        super().__init__()
        self._runs = runs
        self._owner = owner
        self._run_id = run_id
        self._told = told
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._runs.join(self._run_id)
        wait = asyncio.ensure_future(self._runs.concluded(self._owner, self._run_id))
        watch = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({wait, watch}, return_when=asyncio.FIRST_COMPLETED)
            if wait.done():
                await self._told(wait.result()).to_asgi_response(None, self._request)(scope, receive, send)
        finally:
            self._runs.leave(self._run_id)
            wait.cancel()
            watch.cancel()
