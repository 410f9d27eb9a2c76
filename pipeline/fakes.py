"""Parts that keep the real ports without a database or a model, for tests, here and in plugins of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.ending import Outcome
from pipeline.ports import Finish, Message, Passage, Prompt, Run, Scope


class FakeEmbedder:
    """Vectors from hashes of words: texts that share words are near each other."""

    name = "fake"
    dimension = 64
    max_tokens = 256

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text."""
        vectors = np.full((len(texts), self.dimension), 1e-6, np.float32)
        for row, content in enumerate(texts):
            for word in content.lower().split():
                vectors[row, hashlib.blake2b(word.encode(), digest_size=1).digest()[0] % self.dimension] += 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count words."""
        return [len(content.split()) for content in texts]


class FakeRetriever:
    """Finds the passages it was given, whatever is asked."""

    def __init__(self, passages: Sequence[Passage] = ()) -> None:
        self.passages = list(passages)

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:  # noqa: ARG002
        """Return the first ``limit`` passages."""
        return self.passages[:limit]


class FakeReranker:
    """Keeps the order."""

    method = "fake"

    async def rerank(self, question: str, passages: Sequence[Passage], limit: int) -> list[Passage]:  # noqa: ARG002
        """Return the first ``limit`` passages."""
        return list(passages[:limit])


class FakeLLM:
    """Says what it was given, piece by piece; ``closed`` tells whether its stream was closed."""

    model = "fake"

    def __init__(self, pieces: Sequence[str | list[str] | Finish | Exception], *, rewrites: bool = False) -> None:
        self.pieces = pieces
        self.rewrites = rewrites
        self.prompts: list[Prompt] = []
        self.closed = False

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | list[str] | Finish]:
        """Yield the pieces; raise those that are exceptions."""
        self.prompts.append(prompt)
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed = True


class MemoryStore:
    """Keeps the :class:`~pipeline.runner.RunStore` port in dictionaries; raises ``failures`` first, one a call."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.frames: dict[str, list[bytes]] = {}
        self.messages: dict[str, list[Message]] = {}
        self._failures = list(failures)

    async def begin(self, run: Run) -> None:
        """Keep the question, and give the run what was said before."""
        said = self.messages.setdefault(run.session_id, [])
        run.history = list(said)
        said.append(Message("user", run.question))

    async def finish(self, run: Run, outcome: Outcome, frames: list[bytes]) -> None:
        """Keep the answer and the events."""
        if self._failures:
            raise self._failures.pop(0)
        self.outcomes[run.id] = outcome
        self.frames[run.id] = frames
        self.messages[run.session_id].append(Message("assistant", outcome.answer))


def passage(n: int, text: str = "", *, dense: float = 0.7) -> Passage:
    """Return a passage for tests."""
    return Passage(
        chunk_id=n,
        document_id=f"doc-{n}",
        title=f"Title {n}",
        text=text or f"Text of passage {n}.",
        score=dense,
        scores={"dense": dense, "lexical": 1.0, "fused": dense},
    )
