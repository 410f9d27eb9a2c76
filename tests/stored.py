"""What a store holds, in a form that two stores can be compared in: the numbers of chunks are left out."""

import asyncpg

TABLES = {
    "document": "select owner, id, title, url, text, meta, digest, chunk_count from document",
    "chunk": "select owner, document_id, position, heading, text, embedding, sentences from chunk",
    "posting": "select c.owner, c.document_id, c.position, p.term, p.tf, p.length"
    " from posting p join chunk c on c.id = p.chunk_id",
    "term": "select term, chunks from term",
    "store": "select embedder, dimension, chunks, length from store",
    "index": "select pg_get_indexdef(indexrelid), indisvalid from pg_index"
    " where indexrelid = to_regclass('ix_chunk_embedding')",
}
ROWS = "select count(*), md5(string_agg(md5(row::text), '' order by md5(row::text))) from ({}) as row"


async def contents(url):
    """Return for each table, and for the vectors' index, the number of rows and a digest of them all."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return {name: tuple(await connection.fetchrow(ROWS.format(rows))) for name, rows in TABLES.items()}
    finally:
        await connection.close()


async def how_many(url, table="document"):
    """Return the number of rows, 0 while there is no such table."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        is_there = await connection.fetchval("select to_regclass($1) is not null", table)
        return await connection.fetchval(f"select count(*) from {table}") if is_there else 0
    finally:
        await connection.close()
