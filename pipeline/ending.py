"""How a run ended: as it is stored and shown, told to its readers, and logged."""

from __future__ import annotations

from typing import Literal

import msgspec
import structlog

from pipeline.errors import Code, ContractBroken, RunError
from pipeline.events import Cancelled, Done, Error, Event, Failure, Finished, Source, StageTime, Stopped
from pipeline.live import LiveRun, Stop
from pipeline.recording import Left
from pipeline.text import clean

log = structlog.get_logger()

Status = Literal["running", "completed", "cancelled", "error"]

MAX_MESSAGE_CHARS = 500

UNSTORED = Failure("The answer could not be stored.", Code.INTERNAL_ERROR, "run", retryable=True)
UNFINISHED = Failure("Something went wrong in the server.", Code.INTERNAL_ERROR, "run", retryable=True)

_STAGE_CODES = {
    "retrieval": (Code.RETRIEVAL_ERROR, "The search of the collection failed."),
    "reranking": (Code.RERANKING_ERROR, "Putting the passages in order failed."),
    "generation": (Code.GENERATION_ERROR, "The answer could not be written."),
}
_LIMIT_MESSAGES = {
    Stop.IDLE: ("Nothing happened for too long, so the answer was ended.", Code.IDLE_TIMEOUT),
    Stop.FIRST_TOKEN: ("The language model did not begin to answer in time.", Code.GENERATION_ERROR),
    Stop.TOTAL: ("The answer took too long and was ended.", Code.IDLE_TIMEOUT),
    Stop.SHUTDOWN: ("The server is restarting.", Code.SERVER_RESTART),
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is stored, and shown by ``GET /runs/{run_id}``."""

    status: Status
    answer: str
    sources: list[Source]
    stages: dict[str, StageTime]
    elapsed_ms: float
    token_count: int = 0
    first_token_ms: float | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: Failure | None = None
    left: list[Left] = []
    """What each stage left for the next; empty of a run that was read again."""


def failure_of(live: LiveRun, broken: BaseException) -> Failure | None:
    """Say in the client's words what ended the run early; None when the client stopped it."""
    if live.stop.done():
        why = live.stop.result()
        return None if why is Stop.CLIENT else Failure(*_LIMIT_MESSAGES[why], live.stage, retryable=True)
    code, message = _STAGE_CODES.get(live.stage, (Code.STAGE_ERROR, f"The stage {live.stage} failed."))
    if isinstance(broken, RunError):
        message = clean(str(broken))[:MAX_MESSAGE_CHARS]
        return Failure(message, broken.code or code, live.stage, retryable=broken.retryable)
    return Failure(message, code, live.stage, retryable=not isinstance(broken, ContractBroken))


def outcome_of(live: LiveRun, status: Status, failure: Failure | None = None) -> Outcome:
    """Return what there is of a run, with the times and counts that were taken."""
    counted = live.run.finish
    return Outcome(
        status=status,
        answer=live.answer,
        sources=live.run.sources,
        stages=live.timings,
        elapsed_ms=live.elapsed_ms,
        token_count=len(live.pieces),
        first_token_ms=live.first_token_ms,
        finish_reason=live.finish_reason,
        prompt_tokens=counted.prompt_tokens if counted else None,
        completion_tokens=counted.completion_tokens if counted else None,
        error=failure,
        left=live.left,
    )


def last_event(live: LiveRun, outcome: Outcome) -> Event:
    """Return the terminal event for this outcome."""
    if outcome.error:
        return Error(outcome.error)
    if outcome.status == "cancelled":
        return Cancelled(Stopped(stage=live.stage, tokens_kept=outcome.token_count))
    return Done(Finished(live.run.id, live.run.message_id, outcome.elapsed_ms, outcome.stages))


def log_run(live: LiveRun, outcome: Outcome, broken: BaseException | None) -> None:
    """Write the one line of a run."""
    facts = {
        "run_id": live.run.id,
        "session_id": live.run.session_id,
        "first_token_ms": outcome.first_token_ms,
        "token_count": outcome.token_count,
        "elapsed_ms": outcome.elapsed_ms,
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
    }
    if outcome.status == "completed":
        log.info("run.complete", **facts)
    elif outcome.status == "cancelled":
        log.info("Stream cancelled by client", stage=live.stage, **facts)
    elif outcome.error:
        unexpected = broken if not live.stop.done() and not isinstance(broken, RunError) else None
        # What a plugin did is in our own words, which quote nothing.
        reason = str(broken) if isinstance(broken, ContractBroken) else None
        log.error(
            "run.failed",
            stage=live.stage,
            code=outcome.error.code,
            cause=_cause(broken),
            reason=reason,
            exc_info=unexpected,
            **facts,
        )


def _cause(broken: BaseException | None) -> str | None:
    """Name what is behind a failure for the log; never its text, which may quote a question."""
    behind = broken.__cause__ or broken if broken else None
    return type(behind).__name__ if behind else None
