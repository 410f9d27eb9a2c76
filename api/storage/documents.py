"""Reads and deletes the collection's documents."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import tables, vectors
from api.storage.indexing import forget
from api.storage.vectors import WRITE_LOCK
from pipeline.errors import ConfigurationError
from pipeline.ports import Embedder, IndexedRetriever

FORGET = """
with gone as (
    select p.term, p.chunk_id, p.length
      from posting p join chunk c on c.id = p.chunk_id where c.owner = $2 and c.document_id = any($1)
), terms as (
    update term t set chunks = t.chunks - g.n
      from (select term, count(*) as n from gone group by term order by term) g where t.term = g.term
)
update store set chunks = chunks - (select count(*) from chunk where owner = $2 and document_id = any($1)),
                 length = length - (select coalesce(sum(length), 0) from (select distinct chunk_id, length from gone) d)
"""
"""Takes documents (``$1``) of an owner (``$2``) out of the counts of terms and chunks; :data:`WRITE_LOCK` is needed."""


class DocumentRow(msgspec.Struct, frozen=True, kw_only=True):
    """A document without its text."""

    id: str
    title: str
    url: str | None
    metadata: dict[str, Any]
    size_bytes: int
    chunk_count: int
    updated_at: datetime


class ChunkRow(msgspec.Struct, frozen=True):
    """A piece of a document, as it is retrieved."""

    id: int
    position: int
    heading: str
    text: str


class WholeDocument(DocumentRow, frozen=True, kw_only=True):
    """A document with its text, in Markdown, and the chunks it was cut into."""

    text: str
    chunks: list[ChunkRow]


class DocumentPage(msgspec.Struct, frozen=True):
    """Some of the documents, by title and id, and how many there are in all."""

    documents: list[DocumentRow]
    total: int
    limit: int
    offset: int


class StoreMismatch(ConfigurationError):
    """The chunks were embedded by another embedder than the configured one."""

    def __init__(self, found: str, found_dimension: int, wanted: Embedder) -> None:
        super().__init__(
            f"the collection was embedded with {found} ({found_dimension} dimensions), but the embedder in force is "
            f"{wanted.name} ({wanted.dimension} dimensions); run `stagecast reindex` to embed it anew, or choose the "
            "embedder that it was made with"
        )


class Documents:
    """The collection as one owner sees it: the documents that everybody may read, and the owner's."""

    def __init__(self, engine: AsyncEngine, owner: str = "", retriever: IndexedRetriever | None = None) -> None:
        self._engine = engine
        self._owner = owner
        self._retriever = retriever
        self._readable = tables.Document.owner.in_({"", owner})

    async def count(self) -> int:
        """Return how many documents there are."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.count()).where(self._readable)) or 0

    async def page(self, limit: int, offset: int) -> DocumentPage:
        """Return ``limit`` documents from the ``offset``-th on, by title, then id."""
        by_title = (tables.Document.title, tables.Document.id)
        wanted = select(*_columns()).where(self._readable).order_by(*by_title).limit(limit).offset(offset)
        async with self._engine.connect() as connection:
            found = (await connection.execute(wanted)).all()
            total = await connection.scalar(select(func.count()).where(self._readable)) or 0
        return DocumentPage([DocumentRow(**_named(columns)) for columns in found], total, limit, offset)

    async def find(self, document_id: str) -> WholeDocument | None:
        """Return a document, None when there is none of this id; the owner's goes before one for everybody."""
        table, chunk = tables.Document, tables.Chunk
        columns = (*_columns(), table.text, table.owner)
        wanted = select(*columns).where(table.id == document_id, self._readable).order_by(table.owner.desc())
        async with self._engine.connect() as connection:
            row = (await connection.execute(wanted.limit(1))).first()
            if row is None:
                return None
            found = _named(row)
            own = (chunk.owner == found.pop("owner"), chunk.document_id == document_id)
            pieces = select(chunk.id, chunk.position, chunk.heading, chunk.text).where(*own).order_by(chunk.position)
            chunks = (await connection.execute(pieces)).all()
        return WholeDocument(**found, chunks=[ChunkRow(*piece) for piece in chunks])

    async def delete(self, document_id: str) -> bool:
        """Delete a document of the owner's own with all that was made of it; False when there is none of this id."""
        own = (tables.Document.owner == self._owner, tables.Document.id == document_id)
        chunk = tables.Chunk
        pieces = select(chunk.id).where(chunk.owner == self._owner, chunk.document_id == document_id)
        async with self._engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": WRITE_LOCK})
            chunk_ids = (await connection.scalars(pieces)).all()
            await connection.exec_driver_sql(FORGET, ([document_id], self._owner))
            gone = await connection.execute(delete(tables.Document).where(*own))
        if self._retriever and chunk_ids:
            await forget(self._retriever, chunk_ids)
        return bool(gone.rowcount)

    async def bind(self, embedder: Embedder, *, renew: bool = False) -> None:
        """Note the embedder in an empty store and index for its dimension; check it against a filled one.

        ``renew``: empty it first; the documents stay, without chunks, until they are cut and embedded anew.

        Raises:
            StoreMismatch: The store was filled with another one.
        """
        async with self._engine.begin() as connection:
            await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": WRITE_LOCK})
            if renew:
                await connection.execute(text("truncate chunk, posting, term, store"))
                await connection.execute(text("update document set digest = '', chunk_count = 0"))
            found = (await connection.execute(text("select embedder, dimension, chunks from store for update"))).first()
            if found and (found.embedder, found.dimension) == (embedder.name, embedder.dimension):
                return
            if found and found.chunks:
                raise StoreMismatch(found.embedder, found.dimension, embedder)
            await connection.execute(text("drop index if exists " + tables.VECTOR_INDEX))
            await connection.execute(text("delete from store"))
            await connection.execute(
                text("insert into store (id, embedder, dimension) values (1, :name, :dimension)"),
                {"name": embedder.name, "dimension": embedder.dimension},
            )
            await connection.execute(text(vectors.definition(embedder.dimension)))


def _columns() -> tuple[Any, ...]:
    row = tables.Document
    return row.id, row.title, row.url, row.meta, row.size_bytes, row.chunk_count, row.updated_at


def _named(row: Any) -> dict[str, Any]:
    columns = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name for a row as a mapping
    return {"metadata": columns.pop("meta"), **columns}
