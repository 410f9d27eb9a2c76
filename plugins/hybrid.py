"""The retriever ``hybrid``: BM25 and vectors over PostgreSQL, fused.

The score is ``z(cosine) + 0.6 z(BM25)`` over the union of the best of each, z being the standard score among these
candidates. On SciFact it ranks better than either part, and than reciprocal rank fusion; the weight comes from there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.host import Host
from pipeline.ports import Passage, Scope

LEXICAL_WEIGHT = 0.6
COMMON_SHARE = 0.2
"""A term in a greater share of the chunks says nothing of a chunk, and costs the most to look up."""
COMMON_CHUNKS = 1000
"""In a small collection no term is too common."""

K1, B = 1.2, 0.75
"""Of BM25, as in Lucene; idf likewise: ln(1 + (N - n + 0.5) / (n + 0.5))."""
BM25 = {"common_share": COMMON_SHARE, "common_chunks": COMMON_CHUNKS, "k1": K1, "b": B}

LEXICAL = """with words as (
    select t.term, ln(1 + (s.chunks - t.chunks + 0.5) / (t.chunks + 0.5)) as idf,
           greatest(s.length::float8 / greatest(s.chunks, 1), 1) as mean_length
      from store s, unnest(to_tsvector('english', :question)) as q join term t on t.term = q.lexeme
     where t.chunks < :common_share * s.chunks or t.chunks < :common_chunks
), lexical as materialized (
    select p.chunk_id as id,
           sum(w.idf * p.tf * (:k1 + 1) / (p.tf + :k1 * (1 - :b + :b * p.length / w.mean_length))) as bm25
      from words w join posting p using (term) group by p.chunk_id
), best_lexical as (
    select l.id from lexical l {join_lexical}
     where not exists (select from chunk o where o.id = l.id and o.owner <> '' and o.owner <> :owner) {matches}
     order by l.bm25 desc, l.id limit :limit
)"""

DENSE = """best_dense as (
    select c.id from chunk c {join_dense} where c.owner in ('', :owner) {matches}
     order by c.embedding::halfvec({dimension}) <=> cast(:vector as halfvec({dimension})) limit :limit
)"""

CANDIDATES = """candidates as (
    select id from best_lexical union select id from best_dense
)
select c.id, c.document_id, c.position, c.heading, c.text, d.title, d.url, d.meta, coalesce(l.bm25, 0) as bm25,
       1 - (c.embedding::halfvec({dimension}) <=> cast(:vector as halfvec({dimension}))) as cosine
  from candidates join chunk c using (id) join document d on d.owner = c.owner and d.id = c.document_id
       left join lexical l on l.id = c.id
"""

SEARCH = f"{LEXICAL}, {DENSE}, {CANDIDATES}"
"""What has no owner may be found by everybody. Chunks of others are looked up in the index of those that have an owner:
where there are none, that costs nothing."""

ALONE = """
select c.id, c.document_id, c.position, c.heading, c.text, d.title, d.url, d.meta, f.score
  from found f join chunk c using (id) join document d on d.owner = c.owner and d.id = c.document_id
 order by f.score desc, c.id
"""

LEXICAL_FOUND = "found as (select id, l.bm25 as score from best_lexical join lexical l using (id))"
DENSE_FOUND = """found as (
    select id, 1 - (c.embedding::halfvec({dimension}) <=> cast(:vector as halfvec({dimension}))) as score
      from best_dense join chunk c using (id)
)"""

LEXICAL_ALONE = f"{LEXICAL}, {LEXICAL_FOUND} {ALONE}"
DENSE_ALONE = f"with {DENSE}, {DENSE_FOUND} {ALONE}"
"""Each part's search, in its own order."""

OF_DOCUMENT = "join document d on d.owner = c.owner and d.id = c.document_id"

MATCHES = """and not exists (select from jsonb_each(cast(:filters as jsonb)) f
                            where not coalesce((d.meta -> f.key) @> f.value, false))"""
"""A metadata value matches when it equals the filter's, or is a list that has it."""


class HybridRetriever:
    """Finds what has the question's words, and what means the same in others."""

    def __init__(self, host: Host) -> None:
        self._engine = host.service(AsyncEngine)
        self._embedder = host.embedder
        self.parts = {"dense": DenseSearch(self), "lexical": LexicalSearch(self)}

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the best ``limit`` passages with the scores ``dense`` (cosine), ``lexical`` (BM25) and ``fused``."""
        values = {"question": question, "vector": await self.vector(question), "limit": limit, **BM25}
        rows = await self.rows(SEARCH, scope, values)
        return fuse(rows)[:limit]

    async def vector(self, question: str) -> str:
        """Return the question's vector as PostgreSQL reads it."""
        return _halfvec((await self._embedder.embed([question]))[0])

    async def rows(self, template: str, scope: Scope, values: dict[str, Any]) -> Sequence[RowMapping]:
        """Run one of the searches above with its values, within a scope."""
        query = _query(template, self._embedder.dimension, filtered=bool(scope.filters))
        values = {**values, "owner": scope.owner}
        if scope.filters:
            values["filters"] = json.dumps(dict(scope.filters))
        async with self._engine.connect() as connection:
            return (await connection.execute(text(query), values)).mappings().all()

    async def sentence_vectors(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]]:
        """Return for each passage the stored vectors of its sentences, in order; none for a passage that is gone."""
        stored = text("select id, sentences from chunk where id = any(:ids)")
        async with self._engine.connect() as connection:
            rows = await connection.execute(stored, {"ids": [passage.chunk_id for passage in passages]})
            packed = {row.id: row.sentences for row in rows}
        width = self._embedder.dimension
        unpacked = (np.frombuffer(packed.get(passage.chunk_id, b""), np.float16) for passage in passages)
        return [vectors.reshape(-1, width).astype(np.float32) for vectors in unpacked]


def fuse(rows: Sequence[RowMapping | dict[str, Any]]) -> list[Passage]:
    """Return the candidates as passages, best first; ``score`` is the fused one, in 0..1 by the logistic function."""
    if not rows:
        return []
    cosine = np.array([row["cosine"] for row in rows], np.float64)
    bm25 = np.array([row["bm25"] for row in rows], np.float64)
    fused = 1 / (1 + np.exp(-(_standard(cosine) + LEXICAL_WEIGHT * _standard(bm25))))
    order = sorted(range(len(rows)), key=lambda i: (-fused[i], rows[i]["id"]))
    return [_passage(rows[i], float(fused[i]), _scores(rows[i], float(fused[i]))) for i in order]


def _standard(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)


def _scores(row: RowMapping | dict[str, Any], fused: float) -> dict[str, float]:
    return {"dense": float(row["cosine"]), "lexical": float(row["bm25"]), "fused": fused}


def _passage(row: RowMapping | dict[str, Any], score: float, scores: dict[str, float]) -> Passage:
    return Passage(
        chunk_id=row["id"],
        document_id=row["document_id"],
        title=row["title"],
        url=row["url"],
        heading=row["heading"],
        position=row["position"],
        text=row["text"],
        score=score,
        scores=scores,
        metadata=row["meta"],
    )


def _query(template: str, dimension: int, *, filtered: bool) -> str:
    if not filtered:
        return template.format(dimension=int(dimension), join_lexical="", join_dense="", matches="")
    return template.format(
        dimension=int(dimension),
        join_lexical=f"join chunk c on c.id = l.id {OF_DOCUMENT}",
        join_dense=OF_DOCUMENT,
        matches=MATCHES,
    )


class DenseSearch:
    """The vectors alone; ``score`` is the cosine, 0 for what is below."""

    def __init__(self, whole: HybridRetriever) -> None:
        self._whole = whole

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the ``limit`` passages whose vectors are nearest to the question's, best first."""
        vector = await self._whole.vector(question)
        rows = await self._whole.rows(DENSE_ALONE, scope, {"vector": vector, "limit": limit})
        return [_passage(row, max(row["score"], 0.0), {"dense": float(row["score"])}) for row in rows]


class LexicalSearch:
    """BM25 alone; ``score`` is BM25 / (1 + BM25), which keeps its order within 0..1."""

    def __init__(self, whole: HybridRetriever) -> None:
        self._whole = whole

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the ``limit`` passages of the best BM25, best first; none when none has a word of the question."""
        rows = await self._whole.rows(LEXICAL_ALONE, scope, {"question": question, "limit": limit, **BM25})
        return [_passage(row, row["score"] / (1 + row["score"]), {"lexical": row["score"]}) for row in rows]


def _halfvec(vector: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{x:.6g}" for x in vector) + "]"
