"""The retriever ``hybrid``: BM25 and vectors over PostgreSQL, fused.

The score is ``z(cosine) + 0.6 z(BM25)`` over the union of the best of each, z being the standard score among these
candidates. On SciFact and on MedQuAD it ranks better than either part, and than reciprocal rank fusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.host import Host
from pipeline.ports import Database, Passage, Retriever, Scope
from plugins import stored
from plugins.hybrid_queries import DENSE_ALONE, HYBRID, LEXICAL_ALONE, Search, statement
from plugins.stored import Row, passage

LEXICAL_WEIGHT = 0.6
DEPTH = 50
"""Candidates of each part at least: z depends on them, and shall not on how many passages are wanted."""
BM25, COSINE = stored.COLUMNS, stored.COLUMNS + 1
"""Where they are in a row."""


class HybridRetriever:
    """Finds what has the question's words, and what means the same in others."""

    def __init__(self, host: Host) -> None:
        self._database = host.service(Database)
        self._embedder = host.embedder
        self.parts: dict[str, Retriever] = {"dense": DenseSearch(self), "lexical": LexicalSearch(self)}

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the best ``limit`` passages with the scores ``dense`` (cosine), ``lexical`` (BM25) and ``fused``."""
        values = (question, await self.vector(question), scope.owner)
        return fuse(await self.rows(HYBRID, max(limit, DEPTH), scope, values), limit)

    async def vector(self, question: str) -> NDArray[np.float32]:
        """Return the question's vector."""
        found: NDArray[np.float32] = (await self._embedder.embed([question]))[0]
        return found

    async def rows(self, search: Search, depth: int, scope: Scope, values: tuple[object, ...]) -> Sequence[Row]:
        """Run a search, its parameters in order, within a scope; in one round trip."""
        query = statement(search, self._embedder.dimension, depth, len(scope.filters))
        filters = [part for key, value in scope.filters.items() for part in (key, msgspec.json.encode(value).decode())]
        return await self._database.fetch(query, *values, *filters)

    async def sentence_vectors(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]]:
        """Return for each passage the stored vectors of its sentences, in order; none for a passage that is gone."""
        return await stored.sentence_vectors(self._database, passages, self._embedder.dimension)


def fuse(rows: Sequence[Row], limit: int) -> list[Passage]:
    """Return the best ``limit`` candidates, best first; ``score`` is the logistic function of the fused one."""
    cosine = _standard([row[COSINE] for row in rows])
    bm25 = _standard([row[BM25] for row in rows])
    fused = [1 / (1 + math.exp(-(c + LEXICAL_WEIGHT * b))) for c, b in zip(cosine, bm25, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: (-fused[i], rows[i][0]))
    return [passage(rows[i], fused[i], _scores(rows[i], fused[i])) for i in order[:limit]]


def _standard(scores: Sequence[float]) -> list[float]:
    """Return how many standard deviations each score is above their mean; numpy is slower on so few."""
    mean = math.fsum(scores) / max(len(scores), 1)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / max(len(scores), 1))
    return [(score - mean) / deviation if deviation > 0 else 0.0 for score in scores]


def _scores(row: Row, fused: float) -> dict[str, float]:
    return {"dense": row[COSINE], "lexical": row[BM25], "fused": fused}


class DenseSearch:
    """The vectors alone; ``score`` is the cosine, 0 for what is below."""

    def __init__(self, whole: HybridRetriever) -> None:
        self._whole = whole

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the ``limit`` passages whose vectors are nearest to the question's, best first."""
        values = (await self._whole.vector(question), scope.owner)
        rows = await self._whole.rows(DENSE_ALONE, limit, scope, values)
        return [passage(row, max(row[-1], 0.0), {"dense": row[-1]}) for row in rows]


class LexicalSearch:
    """BM25 alone; ``score`` is BM25 / (1 + BM25), which keeps its order within 0..1."""

    def __init__(self, whole: HybridRetriever) -> None:
        self._whole = whole

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the ``limit`` passages of the best BM25, best first; none when none has a word of the question."""
        rows = await self._whole.rows(LEXICAL_ALONE, limit, scope, (question, scope.owner))
        return [passage(row, row[-1] / (1 + row[-1]), {"lexical": row[-1]}) for row in rows]
