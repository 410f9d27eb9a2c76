"""``POST /chat`` and ``GET /runs/{run_id}``: a question, and its answer as a stream or as one object."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Meta

from api.http.problems import failed, refuse
from api.http.schema import StreamOperation
from api.http.sse import EventStream, gone
from api.runs import Answer, Runs, TooManyRuns
from api.settings import Settings
from pipeline.ports import Run
from pipeline.text import clean

MAX_MESSAGE_CHARS = 5_000
MAX_BODY_BYTES = 256 * 1024
"""Of a whole request; a message of the greatest length takes 60 kB when every character of it is escaped."""

SESSION_ID = r"^[A-Za-z0-9._:-]+$(?!\n)"
"""In Python ``$`` also stands before a last line break, which would then be part of the id."""

Filters = dict[Annotated[str, Meta(max_length=100)], str | int | float | bool]


class ChatRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A question; without ``session_id`` a conversation begins, without ``stream`` the header ``Accept`` decides."""

    message: str
    session_id: Annotated[str, Meta(min_length=1, max_length=128, pattern=SESSION_ID)] | None = None
    stream: bool | None = None
    filters: Filters = {}
    """Only passages whose metadata has these values are used."""

    def __post_init__(self) -> None:
        self.message = clean(self.message).strip()
        if not 1 <= len(self.message) <= MAX_MESSAGE_CHARS:
            found = f"it has {len(self.message):,}" if self.message else "it is empty"
            raise ValueError(f"field `message`: 1 to {MAX_MESSAGE_CHARS:,} characters after trimming; {found}")


@post(
    "/chat",
    status_code=200,
    request_max_body_size=MAX_BODY_BYTES,
    responses={
        200: ResponseSpec(Answer, generate_examples=False, description="The answer: as events, or as one object.")
    },
    operation_class=StreamOperation,
)
async def chat(
    data: JSONBody[ChatRequest],
    request: Request[Any, Any, Any],
    runs: NamedDependency[Runs],
    settings: NamedDependency[Settings],
) -> Response[Any]:
    """Ask a question."""
    try:
        run = await runs.start(data.message, data.session_id, data.filters)
    except TooManyRuns as full:
        raise refuse(503, str(full), retry_after_s=1) from None
    if _wants_stream(data, request):
        return EventStream(runs.bus, run.id, heartbeat_s=settings.heartbeat_s, left=lambda: runs.stop(run.id))
    return WholeAnswer(runs, run)


@get("/runs/{run_id:str}")
async def read_run(run_id: str, runs: NamedDependency[Runs]) -> Answer:
    """Return a run: its status, the answer so far, its sources and times."""
    found = await runs.find(run_id)
    if found is None:
        raise refuse(404, f"There is no run {run_id!r}.")
    return found


def _wants_stream(data: ChatRequest, request: Request[Any, Any, Any]) -> bool:
    if data.stream is not None:
        return data.stream
    return request.accept.best_match(["text/event-stream", "application/json"]) != "application/json"


class WholeAnswer(Response[None]):
    """Answers with the run as one JSON object when it has ended, or with a problem when it failed."""

    def __init__(self, runs: Runs, run: Run) -> None:
        super().__init__(None)
        self._runs = runs
        self._run = run

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **_kwargs: Any) -> ASGIResponse:  # noqa: ARG002  # Litestar's own
        """Return a response that waits while it is being sent: only there is the reader's leaving noticed."""
        return _WholeAnswerASGI(self._runs, self._run, request)


class _WholeAnswerASGI(ASGIResponse):
    __slots__ = ("_request", "_run", "_runs")

    def __init__(self, runs: Runs, run: Run, request: Request[Any, Any, Any]) -> None:
        super().__init__()
        self._runs = runs
        self._run = run
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = asyncio.ensure_future(self._runs.finished(self._run))
        watch = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({wait, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not wait.done():
                self._runs.stop(self._run.id)
                return
            await self._response(wait.result()).to_asgi_response(None, self._request)(scope, receive, send)
        finally:
            wait.cancel()
            watch.cancel()

    def _response(self, answer: Answer) -> Response[Any]:
        if answer.error:
            return failed(answer.error, answer.run_id).to_response(self._request)
        return Response(answer, status_code=200)
