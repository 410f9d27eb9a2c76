"""Chunks as the application's database has them, for the retrievers that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.ports import Database, Passage

PASSAGE = "c.id, c.document_id, c.position, c.heading, c.text, d.title, d.url, d.meta::text"
"""What :func:`passage` is made of, of a chunk ``c`` and a document ``d``."""
COLUMNS = 8
OF_DOCUMENT = "join document d on d.owner = c.owner and d.id = c.document_id"
Row = Sequence[Any]
"""A passage, and whatever was asked for behind it."""


def passage(row: Row, score: float, scores: dict[str, float]) -> Passage:
    """Return what a row tells of a chunk, with the scores that it was given."""
    chunk_id, document_id, position, heading, text, title, url, meta = row[:COLUMNS]
    return Passage(
        chunk_id=chunk_id,
        document_id=document_id,
        title=title,
        url=url,
        heading=heading,
        position=position,
        text=text,
        score=score,
        scores=scores,
        metadata=msgspec.json.decode(meta),
    )


async def sentence_vectors(
    database: Database, passages: Sequence[Passage], dimension: int
) -> list[NDArray[np.float32]]:
    """Return for each passage the stored vectors of its sentences, in order; none for a passage that is gone."""
    ids = [one.chunk_id for one in passages]
    rows = await database.fetch("select id, sentences from chunk where id = any($1)", ids)
    packed = {row["id"]: row["sentences"] for row in rows}
    unpacked = (np.frombuffer(packed.get(chunk_id, b""), np.float16) for chunk_id in ids)
    return [vectors.reshape(-1, dimension).astype(np.float32) for vectors in unpacked]
