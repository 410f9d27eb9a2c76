"""Ingestion: files are read, cut into chunks, embedded and written, a batch at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import asyncpg
import msgspec

from api.ingest.readers import BadDocument, Document, find, read
from api.ingest.writer import Prepared, Writer, writer
from api.system import System
from pipeline.chunking import Chunk, chunk
from pipeline.passages import embed_chunks

BATCH, BATCH_CHARS = 64, 200_000
"""Documents that are stored in one transaction: so many at most, or as soon as their texts are so long."""
AT_ONCE = 3
"""Batches under way: two are embedded, which takes two cores, while one is being cut or written."""
FORMAT = 1
"""Of what is stored for a document; a new one makes every document count as changed."""

Item = Document | BadDocument


class Result(msgspec.Struct, frozen=True):
    """What became of one document."""

    path: str
    status: Literal["stored", "unchanged", "failed"]
    reason: str = ""


def ingest(system: System, paths: Sequence[Path]) -> AsyncGenerator[list[Result]]:
    """Bring files and folders into the collection, for everybody; see :func:`ingest_items`."""
    return ingest_items(system, _items(paths))


async def ingest_items(
    system: System, items: Iterator[Item], *, owner: str = "", batch_size: int = BATCH
) -> AsyncGenerator[list[Result]]:
    """Bring what was read into an owner's collection; yield what is done, a batch at a time, once it is stored.

    Raises:
        sqlalchemy.exc.DBAPIError, asyncpg.PostgresError, OSError: The database failed; what was yielded is stored.
        ModelUnavailable: The embedder, or a retriever's own index, failed; likewise.
    """
    items = _distinct(items)
    async with writer(system.engine, owner, system.indexed) as store:
        worker = _Worker(system, store)
        under_way: deque[asyncio.Task[list[Result]]] = deque()
        try:
            while batch := await system.host.threads.run(_batch, items, batch_size):
                under_way.append(asyncio.create_task(worker.take(batch)))
                if len(under_way) >= AT_ONCE:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
            await store.index.build()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)


async def reindex(system: System) -> AsyncGenerator[list[Result]]:
    """Cut and embed every stored document anew, with the embedder in force."""
    async with writer(system.engine, retriever=system.indexed) as every:
        for store in await every.owners():
            worker = _Worker(system, store)
            ids = await store.all_ids()
            for start in range(0, len(ids), BATCH):
                documents = await store.read(ids[start : start + BATCH])
                yield await worker.renew(documents)
        await every.index.build()


def _batch(items: Iterator[Item], size: int) -> list[Item]:
    """Take the next items, none at the end."""
    batch: list[Item] = []
    chars = 0
    for item in islice(items, size):
        batch.append(item)
        chars += len(item.text) if isinstance(item, Document) else 0
        if chars >= BATCH_CHARS:
            break
    return batch


def _items(paths: Sequence[Path]) -> Iterator[Item]:
    for path, root in find(paths):
        yield from read(path, root=root)


def _distinct(items: Iterator[Item]) -> Iterator[Item]:
    """Let the first document of an id through and report the others."""
    taken: dict[str, str] = {}
    for item in items:
        if isinstance(item, Document):
            if item.id in taken:
                yield BadDocument(item.path, f"its id {item.id!r} is already that of {taken[item.id]}")
                continue
            taken[item.id] = item.path
        yield item


class _Worker:
    """Takes batches through embedding and writing; the one connection is used by one batch at a time."""

    def __init__(self, system: System, store: Writer) -> None:
        self._host = system.host
        self._store = store
        self._writing = asyncio.Lock()

    async def take(self, batch: Sequence[Item]) -> list[Result]:
        """Bring a batch in, leaving out what is unchanged."""
        results = [Result(bad.path, "failed", bad.reason) for bad in batch if isinstance(bad, BadDocument)]
        documents = [item for item in batch if isinstance(item, Document)]
        async with self._writing:
            known = await self._store.digests([document.id for document in documents])
        changed = [document for document in documents if known.get(document.id) != _digest(document)]
        same = {document.id for document in documents} - {document.id for document in changed}
        results += [Result(document.path, "unchanged") for document in documents if document.id in same]
        return results + (await self.renew(changed) if changed else [])

    async def renew(self, documents: Sequence[Document]) -> list[Result]:
        """Embed and store documents, whether they are there already or not."""
        prepared = await self._prepare(documents)
        async with self._writing:
            try:
                await self._store.replace(prepared)
            except asyncpg.DataError:
                return [await self._alone(ready) for ready in prepared]
            await self._store.index.wrote(sum(len(ready.chunks) for ready in prepared))
        return [Result(document.path, "stored") for document in documents]

    async def _alone(self, ready: Prepared) -> Result:
        """Store one document of a batch that the database refused, to learn which of them it means."""
        try:
            await self._store.replace([ready])
        except asyncpg.DataError as refused:
            return Result(ready.document.path, "failed", f"the database refuses it: {refused}")
        return Result(ready.document.path, "stored")

    async def _prepare(self, documents: Sequence[Document]) -> list[Prepared]:
        cut = await self._host.threads.run(lambda: [self._chunks(document) for document in documents])
        pieces = [(document.title, piece) for document, chunks in zip(documents, cut, strict=True) for piece in chunks]
        vectors, sentences = await embed_chunks(self._host.embedder, pieces)
        prepared, at = [], 0
        for document, chunks in zip(documents, cut, strict=True):
            rows = slice(at, at := at + len(chunks))
            prepared.append(Prepared(document, _digest(document), chunks, vectors[rows], sentences[rows]))
        return prepared

    def _chunks(self, document: Document) -> list[Chunk]:
        embedder = self._host.embedder
        return chunk(
            document.text,
            title=document.title,
            count_tokens=embedder.count_tokens,
            max_tokens=embedder.max_tokens,
        )


def _digest(document: Document) -> bytes:
    kept = (FORMAT, document.title, document.url, document.text, document.metadata)
    return hashlib.sha256(msgspec.json.encode(kept, order="deterministic")).digest()
