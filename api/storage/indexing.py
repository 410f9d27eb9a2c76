"""The index that a retriever may have of its own, kept in step with the chunks in the database."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import tables
from api.storage.vectors import WRITE_LOCK
from pipeline.errors import ConfigurationError
from pipeline.host import Host
from pipeline.ports import IndexedChunk, IndexedRetriever
from pipeline.threaded import as_async

log = structlog.get_logger()

METHODS = ("held_chunks", "add_chunks", "remove_chunks")
BATCH = 500
"""Chunks that are read, and given to the index, at once."""


def indexed(host: Host) -> IndexedRetriever | None:
    """Return the retriever in force if it has an index of its own.

    Raises:
        ConfigurationError: It has only some of the methods for that.
    """
    retriever = host.retriever
    lacking = [name for name in METHODS if not hasattr(retriever, name)]
    if len(lacking) == len(METHODS):
        return None
    if lacking:
        raise ConfigurationError(
            f"the retriever has no {', '.join(lacking)}; one with an index of its own has {', '.join(METHODS)}"
        )
    return cast("IndexedRetriever", as_async(retriever, host.threads, METHODS, ()))


async def catch_up(engine: AsyncEngine, retriever: IndexedRetriever) -> None:
    """Add to the index what it lacks of the stored chunks, with their stored vectors, and remove what is not stored.

    Raises:
        ConfigurationError: The index cannot be used.
        ModelUnavailable: It could be reached no more.
    """
    held = np.asarray(await retriever.held_chunks(), np.int64)
    stored = await _stored(engine)
    lacking, left_over = np.setdiff1d(stored, held), np.setdiff1d(held, stored)
    if not lacking.size and not left_over.size:
        return
    begun = time.monotonic()
    log.warning("index.behind", lacking=lacking.size, left_over=left_over.size, stored=stored.size)
    if left_over.size:
        await retriever.remove_chunks(left_over.tolist())
    for start in range(0, lacking.size, BATCH):
        await retriever.add_chunks(await _read(engine, lacking[start : start + BATCH].tolist()))
    log.warning("index.caught_up", seconds=round(time.monotonic() - begun, 2))


async def forget(retriever: IndexedRetriever, chunk_ids: Sequence[int]) -> None:
    """Take chunks out of the index that are stored no more; where that fails, the next start makes up for it."""
    try:
        await retriever.remove_chunks(chunk_ids)
    except Exception as failed:  # noqa: BLE001  # a plugin's; what is stored, or deleted, is so in any case
        log.warning("index.left_over", chunks=len(chunk_ids), error=type(failed).__name__)


async def _stored(engine: AsyncEngine) -> NDArray[np.int64]:
    """Return the ids of all chunks, once no writer is between the index and its commit.

    An id that the index had before and that is not among them will never be: it is safe to remove.
    """
    async with engine.begin() as connection:
        await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": WRITE_LOCK})
        return np.fromiter(await connection.scalars(select(tables.Chunk.id)), np.int64)


async def _read(engine: AsyncEngine, chunk_ids: Sequence[int]) -> list[IndexedChunk]:
    chunk, document = tables.Chunk, tables.Document
    columns = (
        chunk.id, chunk.owner, chunk.document_id, document.title, document.url, chunk.heading, chunk.position,
        chunk.text, document.meta, chunk.embedding,
    )  # fmt: skip
    own = (document.owner == chunk.owner) & (document.id == chunk.document_id)
    wanted = select(*columns).join(document, own).where(chunk.id.in_(chunk_ids))
    async with engine.connect() as connection:
        rows = (await connection.execute(wanted)).all()
    names = IndexedChunk.__struct_fields__
    return [IndexedChunk(**dict(zip(names, (*row[:-1], np.asarray(row[-1], np.float32)), strict=True))) for row in rows]
