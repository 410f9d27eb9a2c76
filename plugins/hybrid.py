"""The retriever ``hybrid``: BM25 and vectors over PostgreSQL, fused.

The score is ``z(cosine) + 0.6 z(BM25)`` over the union of the best of each, z being the standard score among these
candidates. On SciFact and on MedQuAD it ranks better than either part, and than reciprocal rank fusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.host import Host
from pipeline.ports import Passage, Scope

LEXICAL_WEIGHT = 0.6
DEPTH = 50
"""Candidates of each part at least: z depends on them, and shall not on how many passages are wanted."""
COMMON_SHARE = 0.2
"""A term in a greater share of the chunks says nothing of a chunk, and costs the most to look up."""
COMMON_CHUNKS = 1000
"""In a small collection no term is too common."""

K1, B = 0.5, 0.5
"""Of BM25 (Robertson and Zaragoza 2009); idf as in Lucene: ln(1 + (N - n + 0.5) / (n + 0.5)). Lucene's own 1.2 and 0.75
rank better alone and worse here: beside the cosine it counts which words are there, less how often."""

SEARCH = """
with words as (
    select t.term, ln(1 + (s.chunks - t.chunks + {half}) / (t.chunks + {half})) * {k1_plus_1} as weight,
           {k1} * (1 - {b}) as k, {k1} * {b} * s.chunks / greatest(s.length, 1) as k_length
      from store s, unnest(to_tsvector('english', $1)) as q join term t on t.term = q.lexeme
     where t.chunks < {common_share} * s.chunks or t.chunks < {common_chunks}
), lexical as materialized (
    select p.chunk_id as id, sum(w.weight * p.tf / (p.tf + w.k + w.k_length * p.length)) as bm25
      from words w join posting p using (term) group by p.chunk_id
), {best}, candidates as (
    select id from best_lexical union select id from best_dense
)
select c.id, c.document_id, c.position, c.heading, c.text, d.title, d.url, d.meta::text, coalesce(l.bm25, 0),
       1 - (c.embedding::{vector} <=> $2::real[]::{vector})
  from candidates join chunk c using (id) join document d on d.owner = c.owner and d.id = c.document_id
       left join lexical l on l.id = c.id
"""
"""What has no owner may be found by everybody. Chunks of others are looked up in the index of those that have an owner:
where there are none, that costs nothing. The depth is part of the text, as a plan for any depth would pass the vectors'
index by; so are other constants, as floats: in SQL's own kind, ``numeric``, scoring takes three times as long."""

BEST = """
best_lexical as (
    select l.id from lexical l
     where not exists (select from chunk o where o.id = l.id and o.owner <> '' and o.owner <> $3)
     order by l.bm25 desc, l.id limit {depth}
), best_dense as (
    select c.id from chunk c where c.owner in ('', $3)
     order by c.embedding::{vector} <=> $2::real[]::{vector} limit {depth}
)
"""

BEST_MATCHING = """
matching as materialized (
    select c.id, c.embedding::{vector} <=> $2::real[]::{vector} as distance
      from document d join chunk c on c.owner = d.owner and c.document_id = d.id
     where d.owner in ('', $3) {matches}
), best_lexical as (
    select l.id from lexical l join matching using (id) order by l.bm25 desc, l.id limit {depth}
), best_dense as (
    select m.id from matching m order by m.distance limit {depth}
)
"""
"""With filters all chunks that pass are compared: an index of all vectors may have none of them near the question."""

MATCHES = "and (d.meta -> ${key}::text) @> ${value}::jsonb"
"""A metadata value matches when it equals the filter's, or is a list that has it."""

Row = Sequence[Any]
"""As ``SEARCH`` returns it."""
BM25, COSINE = 8, 9


class HybridRetriever:
    """Finds what has the question's words, and what means the same in others."""

    def __init__(self, host: Host) -> None:
        self._engine = host.service(AsyncEngine)
        self._embedder = host.embedder

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the best ``limit`` passages with the scores ``dense`` (cosine), ``lexical`` (BM25) and ``fused``."""
        vector = (await self._embedder.embed([question]))[0]
        query = _query(self._embedder.dimension, max(limit, DEPTH), len(scope.filters))
        filters = [part for key, value in scope.filters.items() for part in (key, msgspec.json.encode(value).decode())]
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            found = await connection.exec_driver_sql(query, (question, vector.tolist(), scope.owner, *filters))
            return fuse(found.all(), limit)

    async def sentence_vectors(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]]:
        """Return for each passage the stored vectors of its sentences, in order; none for a passage that is gone."""
        stored = "select id, sentences from chunk where id = any($1)"
        async with self._engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            found = await connection.exec_driver_sql(stored, ([passage.chunk_id for passage in passages],))
            packed = {row.id: row.sentences for row in found}
        width = self._embedder.dimension
        unpacked = (np.frombuffer(packed.get(passage.chunk_id, b""), np.float16) for passage in passages)
        return [vectors.reshape(-1, width).astype(np.float32) for vectors in unpacked]


def fuse(rows: Sequence[Row], limit: int) -> list[Passage]:
    """Return the best ``limit`` candidates, best first; ``score`` is the logistic function of the fused one."""
    cosine = _standard([row[COSINE] for row in rows])
    bm25 = _standard([row[BM25] for row in rows])
    fused = [1 / (1 + math.exp(-(c + LEXICAL_WEIGHT * b))) for c, b in zip(cosine, bm25, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: (-fused[i], rows[i][0]))
    return [_passage(rows[i], fused[i]) for i in order[:limit]]


def _standard(scores: Sequence[float]) -> list[float]:
    """Return how many standard deviations each score is above their mean; numpy is slower on so few."""
    mean = math.fsum(scores) / max(len(scores), 1)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / max(len(scores), 1))
    return [(score - mean) / deviation if deviation > 0 else 0.0 for score in scores]


def _passage(row: Row, fused: float) -> Passage:
    chunk_id, document_id, position, heading, text, title, url, meta, bm25, cosine = row
    return Passage(
        chunk_id=chunk_id,
        document_id=document_id,
        title=title,
        url=url,
        heading=heading,
        position=position,
        text=text,
        score=fused,
        scores={"dense": cosine, "lexical": bm25, "fused": fused},
        metadata=msgspec.json.decode(meta),
    )


@lru_cache
def _query(dimension: int, depth: int, filters: int) -> str:
    places = range(4, 4 + 2 * filters, 2)
    matches = " ".join(MATCHES.format(key=place, value=place + 1) for place in places)
    sizes = {"vector": f"halfvec({int(dimension)})", "depth": int(depth)}
    return SEARCH.format(
        **sizes,
        best=(BEST_MATCHING if filters else BEST).format(**sizes, matches=matches).strip(),
        half=_float(0.5),
        k1=_float(K1),
        k1_plus_1=_float(K1 + 1),
        b=_float(B),
        common_share=_float(COMMON_SHARE),
        common_chunks=COMMON_CHUNKS,
    )


def _float(number: float) -> str:
    """Return a constant for SQL, where a number with a point alone is of the type ``numeric``, which is slow."""
    return f"float8 '{number}'"
