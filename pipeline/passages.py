"""The vectors of chunks and of their sentences, as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.chunking import Chunk, embedded_text
from pipeline.ports import Embedder
from pipeline.text import sentences

Vectors = NDArray[np.float32]


async def embed_chunks(embedder: Embedder, pieces: Sequence[tuple[str, Chunk]]) -> tuple[Vectors, list[Vectors]]:
    """Return a vector per chunk, and for each chunk one per sentence of its text; ``pieces`` are title and chunk.

    An embedder with ``embed_parts`` gives both in one pass; with any other, sentences are embedded by themselves.
    """
    texts = [embedded_text(title, chunk.heading, chunk.text) for title, chunk in pieces]
    spans = [sentences(chunk.text) for _, chunk in pieces]
    if in_one_pass := getattr(embedder, "embed_parts", None):
        before = [len(text) - len(chunk.text) for text, (_, chunk) in zip(texts, pieces, strict=True)]
        shifted = [[(a + n, b + n) for a, b in own] for own, n in zip(spans, before, strict=True)]
        vectors, parts = await in_one_pass(texts, shifted)
        return vectors, parts
    alone = [chunk.text[a:b] for own, (_, chunk) in zip(spans, pieces, strict=True) for a, b in own]
    vectors = await embedder.embed([*texts, *alone])
    ends = np.cumsum([len(own) for own in spans])
    return vectors[: len(texts)], np.split(vectors[len(texts) :], ends)[: len(texts)]
