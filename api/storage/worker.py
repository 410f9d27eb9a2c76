"""Who is alive: a process holds an advisory lock of the database; runs of one that does not are closed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pipeline.errors import Code
from pipeline.events import Failure

log = structlog.get_logger()

SWEEP_S = 2.0
FORGET_S = 10.0
"""Between looks for events whose retention is over, which go through all runs."""
LOST = Failure("The server that was answering was lost.", Code.WORKER_LOST, "run", retryable=True)

UNSTORED = Failure("The answer could not be stored.", Code.INTERNAL_ERROR, "run", retryable=True)
"""Of a run of our own that is stored as running and is not: storing its question or its end went wrong."""

CLOSE_RUNS = """
with lost as (
    update run set status = 'error', error = cast(:error as jsonb), finished_at = now(),
           idempotency_key = case when :again then null else idempotency_key end
     where status = 'running' and worker = :worker and not (id = any(cast(:live as text[])))
       and created_at <= :before
     returning id, owner, session_id, message_id
)
insert into message (id, owner, session_id, run_id, role, content, status)
select message_id, owner, session_id, id, 'assistant', '', 'error' from lost
on conflict do nothing
"""

FORGET_EVENTS = """
update run set events = null, recording = null, idempotency_key = null
 where (events is not null or idempotency_key is not null) and finished_at < now() - make_interval(secs => :retention_s)
"""


class Worker:
    """This process, as the database knows it; ``key`` stands in its runs."""

    def __init__(self, engine: AsyncEngine, retention_s: float, live: Callable[[], list[str]]) -> None:
        self.key = secrets.randbits(62)
        self._engine = engine
        self._retention_s = retention_s
        self._live = live
        self._held: AsyncConnection | None = None
        self._forget_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Take our lock, close the runs of processes that are gone, and look after both from now on."""
        await self._sweep()
        self._task = asyncio.create_task(self._look_after(), name="worker")

    async def end(self) -> None:
        """Give the lock back."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._let_go()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self._sweep()
            except Exception as problem:  # noqa: BLE001  # the database may be down for a while
                log.warning("worker.sweep_failed", error=type(problem).__name__)
                await self._let_go()

    async def _sweep(self) -> None:
        if self._held is None:
            self._held = await self._engine.connect()
            await self._held.execute(text("select pg_advisory_lock(:key)"), {"key": self.key})
        running = text("select distinct worker from run where status = 'running' and worker <> :key")
        for worker in (await self._held.scalars(running, {"key": self.key})).all():
            await self._close_if_lost(self._held, worker)
        await self._close(self._held, self.key, UNSTORED)
        if asyncio.get_running_loop().time() >= self._forget_at:
            await self._held.execute(text(FORGET_EVENTS), {"retention_s": self._retention_s})
            self._forget_at = asyncio.get_running_loop().time() + FORGET_S
        await self._held.commit()

    async def _close_if_lost(self, connection: AsyncConnection, worker: int) -> None:
        if not await connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": worker}):
            return
        await self._close(connection, worker, LOST)
        await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": worker})

    async def _close(self, connection: AsyncConnection, worker: int, failure: Failure) -> None:
        # In this order: a run that is not stored yet by then is among those under way, or begins later.
        before = await connection.scalar(text("select clock_timestamp()"))
        error = msgspec.json.encode(failure).decode()
        values = {"worker": worker, "error": error, "live": self._live(), "before": before}
        # A question that was never begun may be asked again with its key.
        values["again"] = failure is UNSTORED
        closed = await connection.execute(text(CLOSE_RUNS), values)
        if closed.rowcount > 0:
            log.warning("worker.closed_runs", code=failure.code, runs=closed.rowcount)

    async def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(Exception):
                await held.invalidate()
                await held.close()
