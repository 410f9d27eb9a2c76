"""The searches of the retriever ``hybrid``, in SQL for the driver; what is named ``{...}`` is filled in here.

Depth and constants are part of the text. A plan for any depth would pass the vectors' index by; and as floats, since in
SQL's own kind for numbers with a point, ``numeric``, scoring takes three times as long.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from plugins.stored import OF_DOCUMENT, PASSAGE

COMMON_SHARE = 0.2
"""A term in a greater share of the chunks says nothing of a chunk, and costs the most to look up."""
COMMON_CHUNKS = 1000
"""In a small collection no term is too common."""

K1, B = 0.5, 0.5
"""Of BM25 (Robertson and Zaragoza 2009); idf as in Lucene: ln(1 + (N - n + 0.5) / (n + 0.5)). Lucene's own 1.2 and 0.75
rank better alone and worse here: beside the cosine it counts which words are there, less how often."""

LEXICAL = """words as (
    select t.term, ln(1 + (s.chunks - t.chunks + {half}) / (t.chunks + {half})) * {k1_plus_1} as weight,
           {k1} * (1 - {b}) as k, {k1} * {b} * s.chunks / greatest(s.length, 1) as k_length
      from store s, unnest(to_tsvector('english', {question})) as q join term t on t.term = q.lexeme
     where t.chunks < {common_share} * s.chunks or t.chunks < {common_chunks}
), lexical as materialized (
    select p.chunk_id as id, sum(w.weight * p.tf / (p.tf + w.k + w.k_length * p.length)) as bm25
      from words w join posting p using (term) group by p.chunk_id
)"""

BEST_LEXICAL = """best_lexical as (
    select l.id from lexical l
     where not exists (select from chunk o where o.id = l.id and o.owner <> '' and o.owner <> {owner})
     order by l.bm25 desc, l.id limit {depth}
)"""
"""What has no owner may be found by everybody. Chunks of others are looked up in the index of those that have an owner:
where there are none, that costs nothing."""

BEST_DENSE = """best_dense as (
    select c.id from chunk c where c.owner in ('', {owner}) order by {distance} limit {depth}
)"""

MATCHING = """matching as materialized (
    select {matching} from document d join chunk c on c.owner = d.owner and c.document_id = d.id
     where d.owner in ('', {owner}) {matches}
)"""
"""With filters all chunks that pass are compared: an index of all vectors may have none of them near the question."""

MATCHING_LEXICAL = """best_lexical as (
    select l.id from lexical l join matching using (id) order by l.bm25 desc, l.id limit {depth}
)"""
MATCHING_DENSE = "best_dense as (select m.id from matching m order by m.distance limit {depth})"

MATCHES = "and (d.meta -> {key}::text) @> {value}::jsonb"
"""A metadata value matches when it equals the filter's, or is a list that has it."""

CANDIDATES = "candidates as (select id from best_lexical union select id from best_dense)"

PARTS = {"lexical": LEXICAL, "best_lexical": BEST_LEXICAL, "best_dense": BEST_DENSE, "candidates": CANDIDATES}
FILTERED_PARTS = PARTS | {"matching": MATCHING, "best_lexical": MATCHING_LEXICAL, "best_dense": MATCHING_DENSE}

FRAGMENTS = {
    "passage": PASSAGE,
    "of_document": OF_DOCUMENT,
    "half": "float8 '0.5'",
    "k1": f"float8 '{K1}'",
    "k1_plus_1": f"float8 '{K1 + 1}'",
    "b": f"float8 '{B}'",
    "common_share": f"float8 '{COMMON_SHARE}'",
    "common_chunks": str(COMMON_CHUNKS),
}


class Search(NamedTuple):
    """A search: its parameters in order, without those of filters; the parts of its ``with``; what it returns."""

    parameters: tuple[str, ...]
    parts: tuple[str, ...]
    result: str


HYBRID = Search(
    ("question", "vector", "owner"),
    ("lexical", "best_lexical", "best_dense", "candidates"),
    """select {passage}, coalesce(l.bm25, 0), 1 - ({distance})
         from candidates join chunk c using (id) {of_document} left join lexical l on l.id = c.id""",
)
"""Candidates of both kinds, in no order, each with BM25 and cosine."""

DENSE_ALONE = Search(
    ("vector", "owner"),
    ("best_dense",),
    """select {passage}, 1 - ({distance}) as cosine from best_dense join chunk c using (id) {of_document}
        order by cosine desc, c.id""",
)

LEXICAL_ALONE = Search(
    ("question", "owner"),
    ("lexical", "best_lexical"),
    """select {passage}, l.bm25 from best_lexical join lexical l using (id) join chunk c using (id) {of_document}
        order by l.bm25 desc, c.id""",
)


@lru_cache
def statement(search: Search, dimension: int, depth: int, filters: int) -> str:
    """Return a search's text for vectors of ``dimension`` numbers and so many filters, of two parameters each."""
    values = {name: f"${place}" for place, name in enumerate(search.parameters, 1)}
    first = len(search.parameters) + 1
    pairs = range(first, first + 2 * filters, 2)
    vectors = f"halfvec({int(dimension)})"
    values["distance"] = f"c.embedding::{vectors} <=> {values.get('vector')}::{vectors}"
    values["matching"] = "c.id" + (f", {values['distance']} as distance" if "vector" in values else "")
    values["matches"] = " ".join(MATCHES.format(key=f"${place}", value=f"${place + 1}") for place in pairs)
    known, names = (FILTERED_PARTS, ("matching", *search.parts)) if filters else (PARTS, search.parts)
    text = f"with {', '.join(known[name] for name in names)} {search.result}"
    return text.format(**FRAGMENTS, **values, depth=int(depth))
