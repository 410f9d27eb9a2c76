"""The ports: what the pipeline asks of the parts that can be swapped. Each is an entry-point group of its own.

A plugin may keep a port with plain functions and generators instead of async ones: those run in a bounded thread pool.
A function that returns an async generator instead of being one must be annotated with ``AsyncGenerator``.
Plugins are made once, with the :class:`~pipeline.host.Host`, and hold no state of a run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.events import Event, Source

SNIPPET_CHARS = 300
BATCH = 64
"""Frames that a bus hands over at once at most; a reader that is far behind gives the loop back in between."""

Filters = Mapping[str, str | int | float | bool]
"""Metadata that passages must have: for each key the value, or a list with the value in it."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which passages a search may return."""

    owner: str = ""
    """Whose documents may be found besides those that everybody may read; empty: of nobody."""
    filters: Filters = {}


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A retrieved chunk of a document."""

    chunk_id: int
    document_id: str
    title: str
    text: str
    url: str | None = None
    heading: str = ""
    """The headings above the chunk in its document, joined by " > "."""
    position: int = 0
    """The chunk's place in its document, from 0."""
    score: float
    """Of whichever part ordered the passages last; 0..1, higher is better."""
    scores: dict[str, float] = {}
    """Of each part that judged the passage: ``dense`` (cosine), ``lexical`` (BM25), ``fused``, ``reranked``, ..."""
    metadata: dict[str, Any] = {}

    def source(self, n: int) -> Source:
        """Return the passage as the ``n``-th source of an answer, its text cut at a word."""
        text = " ".join(self.text.split())
        if len(text) > SNIPPET_CHARS:
            text = text[: SNIPPET_CHARS - 1].rsplit(" ", 1)[0] + "…"
        return Source(n, self.document_id, self.title, self.url, text, round(self.score, 4))


class Message(msgspec.Struct, frozen=True):
    """A turn of the conversation; ``role`` is ``user`` or ``assistant``."""

    role: str
    content: str
    whole: bool = True
    """False: an answer that was stopped, or that failed, before its end."""


class Finish(msgspec.Struct, frozen=True):
    """Why an LLM ended: ``stop``, ``length``, ``content_filter``, or its own word."""

    reason: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def __post_init__(self) -> None:
        counts = (self.prompt_tokens, self.completion_tokens)
        if not isinstance(self.reason, str) or not all(isinstance(count, int | None) for count in counts):
            raise TypeError("a finish has a reason in words, and whole numbers of tokens")


class Run(msgspec.Struct, kw_only=True):
    """One question and its answer: what stages read, and leave for the next.

    ``passages`` are set by retrieval and put in order by reranking; a stage may change ``query``, which is what is
    searched for and understood without the conversation, while ``question`` stays as it was asked.
    """

    id: str
    owner: str = ""
    """The name of the caller's key; empty where callers need none."""
    session_id: str
    message_id: str
    """Of the answer."""
    question: str
    query: str = ""
    history: Sequence[Message] = ()
    """The conversation before the question, oldest first."""
    filters: Filters = {}
    passages: list[Passage] = []
    sources: list[Source] = []
    """The passages that the answer may cite, by their number."""
    idempotency: tuple[str, bytes] | None = None
    """The client's key for its request, and the request's digest."""
    finish: Finish | None = None
    """Why the LLM ended, and what it counted."""
    wanted: bool = True
    """False when its only reader left before it was begun."""

    def __post_init__(self) -> None:
        self.query = self.query or self.question

    @property
    def scope(self) -> Scope:
        """Which passages the run's searches may return."""
        return Scope(owner=self.owner, filters=self.filters)


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What an LLM is asked; ``messages`` is all of it, the other fields are for those that write no prose."""

    messages: list[dict[str, str]]
    """In the form of OpenAI's chat completions: ``role`` and ``content``."""
    question: str
    """As it stands alone (``Run.query``); ``messages`` end with the user's own words."""
    passages: Sequence[Passage]
    """Numbered from 1 in ``messages``."""


class Database:
    """The application's database, lent to plugins by ``host.service(Database)``: one statement at a time, and fast."""

    async def fetch(self, query: str, *values: object) -> Sequence[Any]:
        """Return the rows of a statement with parameters ``$1``, ``$2``, ...; each row is indexed by place and by name.

        It is a transaction of its own, in one round trip. A parameter of type ``halfvec`` is an array of numpy's.

        Raises:
            TimeoutError: There was no connection, or no answer, in time.
            asyncpg.PostgresError, asyncpg.InterfaceError: The statement, or the connection, failed.
        """
        raise NotImplementedError


class Stage(Protocol):
    """A step of every run.

    It yields ``<name>_start`` first and ``<name>_complete`` last, ``name`` being that of its entry point, or nothing at
    all when it has nothing to do; whatever it yields is sent at once. An exception ends the run with an ``error``
    event; a :class:`~pipeline.errors.RunError` may say with which message and code.
    """

    def run(self, run: Run) -> AsyncGenerator[Event]:
        """Work on ``run`` and yield what clients shall see."""
        ...


class Retriever(Protocol):
    """Finds passages.

    One that is made of several searches may have an attribute ``parts``, a mapping of names to retrievers: each does
    its search alone, in its own order, and ``stagecast eval`` measures it beside the whole.

    One that searches an index of its own instead of the database is an :class:`IndexedRetriever`.
    """

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return at most ``limit`` passages within ``scope``, best first; an empty list is not an error.

        Raises:
            ModelUnavailable: A model or an index could not be reached; worth a retry.
        """
        ...


class IndexedChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk for a retriever's own index: all that a passage of it is made of, whose it is, and its vector."""

    chunk_id: int
    """Of this chunk as it is, and of no other ever after."""
    owner: str
    document_id: str
    title: str
    url: str | None
    heading: str
    position: int
    text: str
    metadata: dict[str, Any]
    vector: NDArray[np.float32]
    """By the embedder in force; of length 1, but for rounding."""


class IndexedRetriever(Retriever, Protocol):
    """A retriever with an index of its own, which ingestion feeds. The database remains what says which chunks exist.

    A retriever is one when it has these methods, which may be plain functions. Whatever fails or is killed, no stored
    chunk is missing from the index; until the next start it may hold others besides, which a search should not find.
    """

    async def held_chunks(self) -> NDArray[np.int64]:
        """Return the ids of all chunks in the index, in any order; one that is not there is made, and empty.

        It is called first, at every start: what the index lacks is then added, of the vectors that are stored, and what
        is not stored is removed. An index of vectors of another dimension than the embedder's is to be made anew.

        Raises:
            ConfigurationError: The index cannot be used; this stops the start.
        """
        ...

    async def add_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Take chunks in, some of which may be there already; called just before they are stored.

        Raises:
            ModelUnavailable: The index could not be reached; the documents are then not stored either.
        """
        ...

    async def remove_chunks(self, chunk_ids: Sequence[int]) -> None:
        """Take chunks out, some of which may not be there; called when they are stored no more.

        Raises:
            ModelUnavailable: The index could not be reached; the next start makes up for it.
        """
        ...


class Reranker(Protocol):
    """Puts passages in a better order.

    One that loads its model while it is already asked may have a method ``async settled()``, which waits until that has
    worked or failed: ``method`` then stays what it is.
    """

    method: str
    """What orders the passages at present, for events and logs; ``fused`` when they stay in the retriever's order."""

    async def rerank(self, question: str, passages: Sequence[Passage], limit: int) -> list[Passage]:
        """Return the best ``limit`` of ``passages``, best first, with new ``score`` and an entry in ``scores``."""
        ...


class LLM(Protocol):
    """Writes the answer.

    An LLM that cannot judge by itself whether the passages answer the question may have an attribute ``min_relevance``:
    when the best passage's cosine is below it, the question is refused and the LLM is not asked.

    One that follows free instructions may have an attribute ``rewrites`` that is true: it is then also asked to rewrite
    follow-up questions, with prompts that have no passages.
    """

    model: str
    """Shown in ``generation_start`` and in the list of plugins."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | list[str] | Finish]:
        """Yield the answer in pieces, the moment they are there, and at the end possibly a ``Finish``.

        Pieces that are there at once may be yielded as a list, which costs less than one after the other.

        Passages are cited as ``[n]``. The stream is closed when the run is stopped; the connection behind it must then
        be closed too.

        Raises:
            GenerationFailed: The model refused or could not be reached.
            UpstreamTruncated: The stream broke off.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    name: str
    """Identifies the vectors: a store is only read with the embedder that filled it."""
    dimension: int
    max_tokens: int
    """Longer texts are cut, not refused."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, in order: shape ``(len(texts), dimension)``.

        Raises:
            ModelUnavailable: The model could not be loaded or reached; worth a retry.
        """
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many of ``max_tokens`` each text takes, in order; an estimate may be too high, never too low."""
        ...


class EventBus(Protocol):
    """Deliver each event of a run to every reader: encoded once, in order, none dropped.

    A reader that lags costs memory up to the run's log, and delays nobody.
    """

    def open(self, run_id: str) -> None:
        """Begin the log of a run."""
        ...

    def publish(self, run_id: str, event: Event) -> int:
        """Number, stamp and append an event; return its frame's size in bytes. Never waits.

        Raises:
            ValueError: The event cannot be sent (see :func:`pipeline.wire.frame`), or its tokens are none (see
                :func:`pipeline.wire.token_frames`); the log stays as it was.
            UnknownRun: The log was never opened, or is closed.
        """
        ...

    def last_frame(self, run_id: str, event: Event) -> bytes:
        """Number and stamp the terminal event without appending it: it is stored before anybody may see it."""
        ...

    def close(self, run_id: str, last: bytes) -> None:
        """Append the terminal event's frame; nothing can follow it.

        Raises:
            UnknownRun: The log was never opened, or is closed: a run has one terminal event.
        """
        ...

    def forget(self, run_id: str) -> None:
        """Let the log of a run go that is stored; it may be read for some seconds more."""
        ...

    async def frames(self, run_id: str) -> list[bytes]:
        """Return all frames so far, to be stored."""
        ...

    def read(self, run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield all frames that are ready, behind number ``after``, in batches; end after the terminal event.

        Raises:
            UnknownRun: The log was never opened, or has been dropped after its time.
        """
        ...
