"""The events of a run, and of the ingestion of an upload.

On the wire an event is ``{"type": ..., "content": ..., "timestamp": ...}``. The structs below hold type (their tag) and
content; number and timestamp are added once, when the event is published (:mod:`pipeline.wire`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from pipeline.errors import Code


class Event(msgspec.Struct, frozen=True, tag_field="type"):
    """What a stage yields. Sub-classes name their ``type`` by ``tag=`` and have one field, ``content``."""


class Started(msgspec.Struct, frozen=True):
    """A stage has begun."""

    stage: str
    status: str = "started"


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A stage has ended; the runner fills in the times.

    ``elapsed_ms`` is measured from the stage's beginning; ``queued_ms`` is what of it was spent waiting for a thread
    or a database connection, which is no work.
    """

    stage: str
    status: str = "complete"
    elapsed_ms: float = 0.0
    queued_ms: float = 0.0


class RunStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Ids under which the run can be watched and the conversation continued."""

    stage: str = "run"
    status: str = "started"
    run_id: str
    session_id: str


class RunStart(Event, frozen=True, tag="run_start"):
    """The first event of every run, before any stage works."""

    content: RunStarted


class CondenseStart(Event, frozen=True, tag="condense_start"):
    """A question that leans on the conversation is being rewritten; others have neither this event nor the next."""

    content: Started = Started("condense")


class Condensed(msgspec.Struct, frozen=True, kw_only=True):
    """What is searched for instead of the question, and who made it: ``llm``, or ``carried``, by rules alone."""

    stage: str = "condense"
    status: str = "complete"
    query: str
    method: str
    elapsed_ms: float = 0.0
    queued_ms: float = 0.0


class CondenseComplete(Event, frozen=True, tag="condense_complete"):
    """The question now stands alone."""

    content: Condensed


class RetrievalStart(Event, frozen=True, tag="retrieval_start"):
    """The search for passages begins."""

    content: Started = Started("retrieval")


class RetrievalCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """How many passages were found; none is not an error."""

    stage: str = "retrieval"
    status: str = "complete"
    doc_count: int
    elapsed_ms: float = 0.0
    queued_ms: float = 0.0


class RetrievalComplete(Event, frozen=True, tag="retrieval_complete"):
    """The search for passages has ended."""

    content: RetrievalCompleted


class RerankingStarted(msgspec.Struct, frozen=True, kw_only=True):
    """How many passages are about to be put in order."""

    stage: str = "reranking"
    status: str = "started"
    candidates: int


class RerankingStart(Event, frozen=True, tag="reranking_start"):
    """The passages are about to be put in order."""

    content: RerankingStarted


class RerankingCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """How many passages were kept, and what ordered them (``method``; ``fused``: no reranking model was at hand)."""

    stage: str = "reranking"
    status: str = "complete"
    selected: int
    elapsed_ms: float = 0.0
    queued_ms: float = 0.0
    method: str = ""


class RerankingComplete(Event, frozen=True, tag="reranking_complete"):
    """The passages are in their final order."""

    content: RerankingCompleted


class Source(msgspec.Struct, frozen=True):
    """A passage that the answer may cite as ``[n]``; ``score`` is in 0..1, ``snippet`` at most 300 characters."""

    n: int
    document_id: str
    title: str
    url: str | None
    snippet: str
    score: float


class SourceList(msgspec.Struct, frozen=True, kw_only=True):
    """The passages given to the LLM, best first."""

    stage: str = "sources"
    status: str = "complete"
    sources: list[Source]


class Sources(Event, frozen=True, tag="sources"):
    """Sent before the first token."""

    content: SourceList


class GenerationStarted(msgspec.Struct, frozen=True, kw_only=True):
    """Which model writes the answer; ``extractive`` quotes the passages and writes nothing of its own."""

    stage: str = "generation"
    status: str = "started"
    model: str


class GenerationStart(Event, frozen=True, tag="generation_start"):
    """The LLM is asked."""

    content: GenerationStarted


class Token(Event, frozen=True, tag="token"):
    """The next piece of the answer; the answer is the tokens joined with nothing between."""

    content: str


class Tokens(Event, frozen=True, tag="token"):
    """Several tokens that are there at once, in order: each is sent as a :class:`Token` of its own, at less cost."""

    content: list[str]


class GenerationCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """``token_count`` and ``first_token_ms`` (from the stage's beginning; null without a token) are the runner's."""

    stage: str = "generation"
    status: str = "complete"
    token_count: int = 0
    first_token_ms: float | None = None
    elapsed_ms: float = 0.0
    queued_ms: float = 0.0
    finish_reason: str = "stop"


class GenerationComplete(Event, frozen=True, tag="generation_complete"):
    """The LLM has ended; ``finish_reason`` says why: ``stop``, ``length``, ``content_filter``, ``no_sources``."""

    content: GenerationCompleted


class StageTime(msgspec.Struct, frozen=True):
    """Time from a stage's beginning to its end."""

    elapsed_ms: float


class Finished(msgspec.Struct, frozen=True):
    """The stored answer and the time of every stage."""

    run_id: str
    message_id: str
    elapsed_ms: float
    stages: dict[str, StageTime]


class Done(Event, frozen=True, tag="done"):
    """The last event of a run that succeeded, sent only after the answer is stored."""

    content: Finished


class Failure(msgspec.Struct, frozen=True):
    """``message`` is for people, ``code`` for programs; ``retryable``: sending the same message again can help."""

    message: str
    code: Code
    stage: str
    retryable: bool


class Error(Event, frozen=True, tag="error"):
    """The last event of a run, or a job, that failed."""

    content: Failure


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """In which stage the run was stopped, and how many tokens of its answer were kept."""

    stage: str
    status: str = "cancelled"
    tokens_kept: int


class Cancelled(Event, frozen=True, tag="cancelled"):
    """The last event of a run that was stopped."""

    content: Stopped


class IngestionStarted(msgspec.Struct, frozen=True, kw_only=True):
    """How many documents are expected: one a file, one a line of JSON lines."""

    stage: str = "ingestion"
    status: str = "started"
    job_id: str
    total: int


class IngestionStart(Event, frozen=True, tag="ingestion_start"):
    """The first event of a job; one that waits for others has none."""

    content: IngestionStarted


class FailedDocument(msgspec.Struct, frozen=True):
    """A file, or a line of it (``corpus.jsonl:17``), that gave no document; ``reason`` goes on after the path."""

    path: str
    reason: str


class IngestionProgressed(msgspec.Struct, frozen=True, kw_only=True):
    """How many documents are done, and what became of them; ``failures`` are those since the event before."""

    stage: str = "ingestion"
    status: str = "progress"
    total: int
    done: int
    stored: int
    unchanged: int
    failed: int
    failures: list[FailedDocument]


class IngestionProgress(Event, frozen=True, tag="ingestion_progress"):
    """More documents are stored; at most 100 failures of a job are told one by one."""

    content: IngestionProgressed


class IngestionCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the documents; ``elapsed_ms`` counts from the upload."""

    stage: str = "ingestion"
    status: str = "complete"
    total: int
    stored: int
    unchanged: int
    failed: int
    elapsed_ms: float


class IngestionComplete(Event, frozen=True, tag="ingestion_complete"):
    """The last event of a job, also when documents failed; ``error`` comes instead when it could not go on."""

    content: IngestionCompleted


TERMINAL = (Done, Error, Cancelled)
"""Exactly one of these ends a run."""

WIRE_EVENTS = (
    RunStart, CondenseStart, CondenseComplete, RetrievalStart, RetrievalComplete, RerankingStart, RerankingComplete,
    Sources, GenerationStart, Token, GenerationComplete, Done, Error, Cancelled, IngestionStart, IngestionProgress,
    IngestionComplete,
)  # fmt: skip

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@lru_cache
def stage_events(stage: str) -> tuple[type[Any], type[Any]]:
    """Return the event types ``<stage>_start`` and ``<stage>_complete`` for a stage of one's own.

    Both have a default content, so that ``Start()`` and ``Complete()`` suffice; the runner fills in the time.

    Raises:
        ValueError: ``stage`` is not lower case letters, digits and underscores.
    """
    if not _STAGE_NAME.fullmatch(stage):
        raise ValueError(f"stage name {stage!r}: only a-z, 0-9 and _, beginning with a letter")
    return (
        msgspec.defstruct(
            f"{stage}_start", [("content", Started, Started(stage))], bases=(Event,), frozen=True, tag=f"{stage}_start"
        ),
        msgspec.defstruct(
            f"{stage}_complete",
            [("content", Completed, Completed(stage=stage))],
            bases=(Event,),
            frozen=True,
            tag=f"{stage}_complete",
        ),
    )


def tokens_of(event: Event) -> list[str] | None:
    """Return the pieces of the answer that an event brings, None if it is another event."""
    if type(event) is Tokens:
        return event.content
    return [event.content] if type(event) is Token else None


def type_of(event: Event) -> str:
    """Return the event's ``type`` as it stands on the wire."""
    return str(event.__struct_config__.tag)
