"""Everything that can go wrong, in one small tree."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """The stable name of a failure, as clients see it in an ``error`` event."""

    RETRIEVAL_ERROR = "RETRIEVAL_ERROR"
    RERANKING_ERROR = "RERANKING_ERROR"
    GENERATION_ERROR = "GENERATION_ERROR"
    STAGE_ERROR = "STAGE_ERROR"
    INGESTION_ERROR = "INGESTION_ERROR"
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    UPSTREAM_TRUNCATED = "UPSTREAM_TRUNCATED"
    SERVER_RESTART = "SERVER_RESTART"
    WORKER_LOST = "WORKER_LOST"
    INTERNAL_ERROR = "INTERNAL_ERROR"


class StagecastError(Exception):
    """The root of the tree."""


class ConfigurationError(StagecastError):
    """Stops the start; its message names the culprit and the remedy."""


class BadSetting(ConfigurationError):
    """A setting is unknown or malformed."""


class RunError(StagecastError):
    """Ends a run with an ``error`` event.

    The message reaches the client: plain words, no internals. The cause (``raise ... from cause``) is for the log only.
    """

    code: Code | None = None
    """None: the code of the stage in which it was raised."""
    retryable = True
    """Whether sending the same question again can help."""


class GenerationFailed(RunError):
    """The LLM refused, broke off or could not be reached."""

    code = Code.GENERATION_ERROR

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class UpstreamTruncated(RunError):
    """The LLM's stream ended without saying why it ended; the answer may lack its end."""

    code = Code.UPSTREAM_TRUNCATED

    def __init__(self) -> None:
        super().__init__("The language model's answer broke off before its end.")


class ModelUnavailable(RunError):
    """A model could not be loaded or reached."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model} cannot be reached at the moment.")


class IndexInUse(ConfigurationError):
    """Another process has the index of a retriever, which is for one at a time."""


class IndexUnavailable(ModelUnavailable):
    """The index of a retriever could not be reached."""

    def __init__(self, index: str) -> None:
        RunError.__init__(self, f"The index {index} cannot be reached at the moment.")


class Overloaded(RunError):
    """As much waits for a thread as may."""

    def __init__(self) -> None:
        super().__init__("The server has too much to do at the moment.")


class ContractBroken(StagecastError):
    """A plugin did what its port forbids; the message says what."""


class RunGone(StagecastError):
    """The run was deleted; its end can be stored nowhere."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id!r} was deleted")


class NobodyWaits(StagecastError):
    """The client left while its question still waited to be stored; nothing was stored."""


class UnknownRun(StagecastError):
    """No run of this id is on the bus."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r}")
