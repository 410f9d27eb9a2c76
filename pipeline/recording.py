"""What each stage of a run left for the next, kept so that later stages can be tried again on the same passages."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from pipeline.ports import Filters, Message, Passage, Run

log = structlog.get_logger()

MAX_HISTORY_CHARS = 20_000
"""Of the conversation that are kept, from its end: several times what an LLM is given by default."""
MAX_BYTES = 1024 * 1024
"""A larger recording is not kept."""


class Left(msgspec.Struct, frozen=True):
    """What a stage left: the run's query and passages at its end."""

    stage: str
    query: str
    passages: list[Passage]


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """All that the stages of a run were given, and left."""

    question: str
    history: list[Message]
    filters: Filters
    left: list[Left]

    def before(self, stage: str, order: Sequence[str]) -> Left:
        """Return what there was when a stage began, ``order`` being that of all stages."""
        earlier = order[: order.index(stage)]
        found = [left for left in self.left if left.stage in earlier]
        return found[-1] if found else Left("", self.question, [])


def recorded(run: Run, left: list[Left]) -> Recording:
    """Return the recording of a run."""
    return Recording(question=run.question, history=_latest(run.history), filters=run.filters, left=left)


def _latest(history: Sequence[Message]) -> list[Message]:
    kept: list[Message] = []
    chars = 0
    for turn in reversed(history):
        chars += len(turn.content)
        if chars > MAX_HISTORY_CHARS:
            break
        kept.append(turn)
    return kept[::-1]


def encode(recording: Recording) -> bytes | None:
    """Return a recording's bytes; None when they are too many, or it has in it what cannot be written down."""
    try:
        encoded = msgspec.msgpack.encode(recording)
    except Exception as problem:  # noqa: BLE001  # of a plugin's metadata; an answer must not be lost for its recording
        log.warning("run.unrecorded", error=type(problem).__name__)
        return None
    return encoded if len(encoded) <= MAX_BYTES else None


def decode(encoded: bytes) -> Recording | None:
    """Return the recording of :func:`encode`'s bytes; None when it had in it what cannot be read as it was."""
    try:
        return msgspec.msgpack.decode(encoded, type=Recording)
    except msgspec.ValidationError:
        return None
