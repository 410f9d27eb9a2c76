"""Writes documents with their chunks and postings; a document is replaced in one transaction."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.asyncpg import register_vector
from sqlalchemy.ext.asyncio import AsyncEngine

from api.ingest.readers import Document
from api.storage.database import CONNECT_TIMEOUT_S
from api.storage.documents import FORGET
from api.storage.indexing import forget
from api.storage.patience import PromptConnection
from api.storage.vectors import WRITE_LOCK, VectorIndex
from pipeline.chunking import Chunk
from pipeline.ports import IndexedChunk, IndexedRetriever

WRITE_TIMEOUT_S = 120.0

INDEX = """
insert into posting (term, chunk_id, tf, length)
select lexeme, id, least(tf, 32767), sum(tf) over (partition by id)
  from (select c.id, t.lexeme, cardinality(t.positions) as tf
          from chunk c join document d on d.owner = c.owner and d.id = c.document_id,
               unnest(to_tsvector('english', concat_ws(' ', d.title, d.title, c.heading, c.text))) as t
         where c.id = any($1)) as terms
"""
"""A title's words count twice."""

COUNT = """
with fresh as (
    select term, chunk_id, length from posting where chunk_id = any($1)
), terms as (
    insert into term (term, chunks) select term, count(*) from fresh group by term order by term
        on conflict (term) do update set chunks = term.chunks + excluded.chunks
)
update store set chunks = chunks + cardinality($1::bigint[]),
                 length = length + (select coalesce(sum(f.length), 0)
                                      from (select distinct chunk_id, length from fresh) f)
"""


class Prepared(msgspec.Struct, frozen=True):
    """A document that is ready to be written; vectors are one row a chunk, sentences one array a chunk."""

    document: Document
    digest: bytes
    chunks: list[Chunk]
    vectors: NDArray[np.float32]
    sentences: list[NDArray[np.float32]]


class Writer:
    """Writes one owner's documents.

    It has a connection of its own: bulk writes need another codec and more patience than questions.
    """

    def __init__(
        self,
        connection: asyncpg.Connection[asyncpg.Record],
        owner: str = "",
        retriever: IndexedRetriever | None = None,
        index: VectorIndex | None = None,
    ) -> None:
        self.index = index or VectorIndex(connection)
        self._connection = connection
        self._owner = owner
        self._retriever = retriever

    async def digests(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the digests of those documents that are stored, by id."""
        stored = "select id, digest from document where owner = $2 and id = any($1)"
        rows = await self._connection.fetch(stored, ids, self._owner)
        return {row["id"]: row["digest"] for row in rows}

    async def all_ids(self) -> list[str]:
        """Return the ids of all documents of this owner."""
        stored = "select id from document where owner = $1 order by id"
        return [row["id"] for row in await self._connection.fetch(stored, self._owner)]

    async def owners(self) -> list[Writer]:
        """Return a writer for each owner that has documents, on this connection."""
        rows = await self._connection.fetch("select distinct owner from document order by owner")
        return [Writer(self._connection, row["owner"], self._retriever, self.index) for row in rows]

    async def read(self, ids: Sequence[str]) -> list[Document]:
        """Return stored documents as they were read."""
        columns = "id, title, url, text, meta as metadata, path"
        wanted = f"select {columns} from document where owner = $2 and id = any($1) order by id"  # noqa: S608  # names of ours
        return [Document(**row) for row in await self._connection.fetch(wanted, ids, self._owner)]

    async def replace(self, batch: Sequence[Prepared]) -> None:
        """Store the documents, replacing those that are there, in one transaction.

        A retriever with an index of its own has the new chunks before that, and the old ones until after it: whenever
        this ends, nothing that is stored is missing there.

        Raises:
            ModelUnavailable: That index could not be reached; nothing has changed.
        """
        async with self._connection.transaction():
            await self._lock()
            documents = [ready.document.id for ready in batch]
            gone = await self._chunk_ids(documents) if self._retriever else []
            await self._remove(documents)
            await self._copy("document", [{"owner": self._owner, **_document_row(ready)} for ready in batch])
            ids = await self._copy_chunks(batch)
            await self._connection.execute(INDEX, ids)
            await self._connection.execute(COUNT, ids)
            if self._retriever:
                await self._retriever.add_chunks(_indexed(batch, self._owner, ids))
        if self._retriever and gone:
            await forget(self._retriever, gone)

    async def _lock(self) -> None:
        await self._connection.execute("select pg_advisory_xact_lock($1)", WRITE_LOCK)

    async def _chunk_ids(self, ids: list[str]) -> list[int]:
        stored = "select id from chunk where owner = $2 and document_id = any($1)"
        return [row["id"] for row in await self._connection.fetch(stored, ids, self._owner)]

    async def _remove(self, ids: list[str]) -> None:
        await self._connection.execute(FORGET, ids, self._owner)
        await self._connection.execute("delete from document where owner = $2 and id = any($1)", ids, self._owner)

    async def _copy_chunks(self, batch: Sequence[Prepared]) -> list[int]:
        count = sum(len(ready.chunks) for ready in batch)
        new = "select nextval(pg_get_serial_sequence('chunk', 'id')) as id from generate_series(1, $1::int)"
        ids = [row["id"] for row in await self._connection.fetch(new, count)]
        rows = [row for ready in batch for row in _chunk_rows(ready)]
        await self._copy("chunk", [{"id": i, "owner": self._owner, **row} for i, row in zip(ids, rows, strict=True)])
        return ids

    async def _copy(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            records = [tuple(row.values()) for row in rows]
            await self._connection.copy_records_to_table(table, records=records, columns=list(rows[0]))


@asynccontextmanager
async def writer(
    engine: AsyncEngine, owner: str = "", retriever: IndexedRetriever | None = None
) -> AsyncGenerator[Writer]:
    """Lend a writer of an owner's documents to the engine's database, and to a retriever's own index."""
    # asyncpg calls ssl in an address sslmode, SQLAlchemy hands ssl on to it.
    query = {"sslmode" if name == "ssl" else name: value for name, value in engine.url.query.items()}
    url = engine.url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)
    connection = await asyncpg.connect(
        url, timeout=CONNECT_TIMEOUT_S, command_timeout=WRITE_TIMEOUT_S, connection_class=PromptConnection
    )
    try:
        await register_vector(connection)
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=_encode_jsonb,
            decoder=lambda value: json.loads(value[1:]),
        )
        yield Writer(connection, owner, retriever)
    finally:
        await connection.close()


def _encode_jsonb(value: object) -> bytes:
    """Return PostgreSQL's binary form: a version number, then the text."""
    return b"\x01" + json.dumps(value).encode()


def _document_row(ready: Prepared) -> dict[str, Any]:
    document = ready.document
    return {
        "id": document.id,
        "title": document.title,
        "url": document.url,
        "text": document.text,
        "meta": document.metadata,
        "path": document.path,
        "digest": ready.digest,
        "chunk_count": len(ready.chunks),
    }


def _chunk_rows(ready: Prepared) -> list[dict[str, Any]]:
    return [
        {
            "document_id": ready.document.id,
            "position": chunk.position,
            "heading": chunk.heading,
            "text": chunk.text,
            "embedding": HalfVector(vector),
            "sentences": sentences.astype(np.float16).tobytes(),
        }
        for chunk, vector, sentences in zip(ready.chunks, ready.vectors, ready.sentences, strict=True)
    ]


def _indexed(batch: Sequence[Prepared], owner: str, ids: Sequence[int]) -> list[IndexedChunk]:
    """Return the chunks of a batch, whose ids are in the same order, for a retriever's own index."""
    pieces = [
        (ready.document, chunk, vector)
        for ready in batch
        for chunk, vector in zip(ready.chunks, ready.vectors, strict=True)
    ]
    return [
        IndexedChunk(
            chunk_id=chunk_id,
            owner=owner,
            document_id=document.id,
            title=document.title,
            url=document.url,
            heading=chunk.heading,
            position=chunk.position,
            text=chunk.text,
            metadata=document.metadata,
            vector=vector,
        )
        for chunk_id, (document, chunk, vector) in zip(ids, pieces, strict=True)
    ]
