"""The vectors' index: left out while a load brings the most of the collection, and built when all is there."""

from __future__ import annotations

import asyncpg
import structlog

from api.storage import tables
from api.storage.database import MIGRATION_TIMEOUT_S

log = structlog.get_logger()

WRITE_LOCK = 7_224_113_002
"""Of ``pg_advisory_xact_lock``: vectors and counts of terms are changed by one writer at a time."""
LOAD_LOCK = 7_224_113_003
"""Of ``pg_try_advisory_lock``: held by the load that leaves the index out, and by whoever builds it."""
LEAST = 1_000
"""Chunks; fewer are not worth it."""
MOST = 50_000
"""Chunks; without the index a search compares all of them, which more would make slow."""
MEMORY = "256MB"
"""For the graph while it is built; what does not fit is built several times as slowly."""

ANALYZED = "document, chunk, posting, term, store"
"""What a search reads."""
ANALYZE_TIMEOUT_S = 60.0
IS_ANALYZED = """
select abs(store.chunks - class.reltuples) <= 0.2 * store.chunks from store, pg_class class
 where class.oid = 'chunk'::regclass
"""
"""Whether the planner's number of chunks, -1 at first, is near the real one; autovacuum comes by sooner or later."""

IS_VALID = "select coalesce((select indisvalid from pg_index where indexrelid = to_regclass($1)), false)"


def definition(dimension: int, *, concurrently: bool = False) -> str:
    """Return the command that makes the HNSW index; m and ef_construction are pgvector's defaults."""
    return (
        f"create index {'concurrently' if concurrently else ''} {tables.VECTOR_INDEX} on chunk using hnsw "
        f"((embedding::halfvec({int(dimension)})) halfvec_cosine_ops) with (m = 16, ef_construction = 64)"
    )


class VectorIndex:
    """The index as a load sees it, on the load's connection; searches and other writers never wait for it.

    It is built of a whole collection in a quarter of the time that its chunks take one by one. While it is missing,
    searches compare every vector: right, and slower. A load that is killed leaves it missing or unfinished; the end of
    the next one, or the next start of a server, builds it.
    """

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection
        self._written = 0
        self._is_out = False

    async def wrote(self, chunks: int) -> None:
        """Note that the load has written so many more; drop the index when they are the most, until there are many."""
        self._written += chunks
        total = await self._connection.fetchval("select chunks from store")
        if self._is_out and total > MOST:
            await self.build()
        elif not self._is_out and max(LEAST, total / 2) <= self._written and total <= MOST:
            await self._leave_out()

    async def build(self) -> None:
        """Build the index if it is missing or was left unfinished, unless another load leaves it out or builds it.

        To be called at the end of a load: searches are planned anew behind it.
        """
        if not self._is_out and not await self._lock():
            return
        try:
            is_known = await self._connection.fetchval(IS_ANALYZED)
            if not await self._connection.fetchval(IS_VALID, tables.VECTOR_INDEX):
                await self._make()
            if not is_known or self._written >= LEAST:
                await self._analyze()
        finally:
            self._is_out = False
            await self._connection.execute(f"select pg_advisory_unlock({LOAD_LOCK})")

    async def _leave_out(self) -> None:
        if await self._lock():
            self._is_out = True
            await self._drop()

    async def _lock(self) -> bool:
        """Try only: who waits for a lock holds a snapshot, and the one who builds would wait for that."""
        return bool(await self._connection.fetchval("select pg_try_advisory_lock($1)", LOAD_LOCK))

    async def _drop(self) -> None:
        await self._connection.execute(
            f"drop index concurrently if exists {tables.VECTOR_INDEX}", timeout=MIGRATION_TIMEOUT_S
        )

    async def _make(self) -> None:
        await self._drop()
        dimension = await self._connection.fetchval("select dimension from store")
        await self._connection.execute(f"set maintenance_work_mem = '{MEMORY}'")
        # Parallel builders share memory in /dev/shm, of which containers have 64 MB; questions need the other cores.
        await self._connection.execute("set max_parallel_maintenance_workers = 0")
        await self._connection.execute(definition(dimension, concurrently=True), timeout=MIGRATION_TIMEOUT_S)

    async def _analyze(self) -> None:
        """Have searches planned for the rows that are there now, not the few there were.

        Without it they take three times as long until autovacuum comes by.
        """
        try:
            await self._connection.execute(f"analyze {ANALYZED}", timeout=ANALYZE_TIMEOUT_S)
        except (TimeoutError, asyncpg.PostgresError) as problem:  # somebody vacuums, say; nothing is lost
            log.warning("search.not_analyzed", error=type(problem).__name__)
