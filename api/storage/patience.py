"""How long anybody waits for the database: connections that do not wait for a server that has stopped answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import greenlet_spawn

from pipeline.ports import Database
from pipeline.queueing import queueing

REQUEST_S = 5.0
"""For all that is done with one connection in one go."""
ACKNOWLEDGE_S = 0.25
"""How long the server may take to say that it has cancelled a command, or has said goodbye."""
PASSING = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Begins of the SQLSTATEs that say nothing about the statement: no connection, a standby, a conflict with others, no
room, a lock that somebody keeps, an end on somebody's orders, the system around the server."""


class PromptConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg ships no types
    """Ends within ``ACKNOWLEDGE_S`` of the end of our patience, whether the server answers or not.

    asyncpg's own would wait for the server to acknowledge a cancelled command, before a rollback as before its close;
    a frozen one does not.
    """

    def _cancel_current_command(self, *waiters: Any) -> None:
        super()._cancel_current_command(*waiters)
        # By then the request to cancel has been sent; acknowledged or not, a command was given up with the connection.
        self._loop.call_later(ACKNOWLEDGE_S, self._give_up, waiters[-1])

    def _give_up(self, acknowledged: asyncio.Future[None]) -> None:
        if not acknowledged.done():
            self.terminate()

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncpg's own
        """Say goodbye, or hang up without it."""
        await super().close(timeout=min(timeout or ACKNOWLEDGE_S, ACKNOWLEDGE_S))


class LimitedConnection(AsyncConnection):
    """A connection that is given back after ``REQUEST_S``, also by whoever still waits for it, or for its answers.

    Raises:
        TimeoutError: The time is over.
    """

    __slots__ = ("_undo",)

    async def __aenter__(self) -> AsyncConnection:
        """Take a connection from the pool; the time begins before that."""
        async with AsyncExitStack() as undo:
            await undo.enter_async_context(asyncio.timeout(REQUEST_S))
            with queueing():
                connection = await super().__aenter__()
            undo.push_async_exit(super().__aexit__)
            self._undo = undo.pop_all()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        await self._undo.__aexit__(kind, error, trace)


class LimitedEngine(AsyncEngine, Database):
    """Another engine, whose pool it shares, with a limit on how long each connection is taken for."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine.sync_engine)

    def connect(self) -> AsyncConnection:
        """Return a connection that is to be entered with ``async with``."""
        return LimitedConnection(self)

    def execution_options(self, **options: Any) -> LimitedEngine:
        """Return this engine with options for each of its connections; SQLAlchemy's own would know no limit."""
        return LimitedEngine(super().execution_options(**options))

    async def fetch(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        """Run a statement, a transaction of its own."""
        async with self.direct() as connection:
            rows: Sequence[asyncpg.Record] = await connection.fetch(query, *values)
        return rows

    @asynccontextmanager
    async def direct(self) -> AsyncGenerator[asyncpg.Connection[asyncpg.Record]]:
        """Lend a connection past SQLAlchemy's connections and cursors, which take twice as long as all the rest."""
        async with asyncio.timeout(REQUEST_S):
            try:
                with queueing():
                    lent = await greenlet_spawn(self.sync_engine.raw_connection)
            except self.dialect.loaded_dbapi.Error as failed:  # SQLAlchemy's paraphrase
                raise failed.__cause__ or failed from None
            connection: Any = lent.driver_connection
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError, asyncpg.InterfaceError):
                await greenlet_spawn(lent.invalidate)  # it may be busy with what nobody waits for any more
                raise
            finally:
                if lent.is_valid and connection.is_in_transaction():  # the next one's statements would be lost in it
                    await greenlet_spawn(lent.invalidate)
                await greenlet_spawn(lent.close)


def is_passing(problem: BaseException) -> bool:
    """Say whether a failure is the database's state and not the statement's: worth a retry, by whoever asked."""
    if isinstance(problem, asyncpg.PostgresError):
        return str(problem.sqlstate).startswith(PASSING)
    if not isinstance(problem, DBAPIError):
        return isinstance(problem, PoolTimeout | OSError | TimeoutError | asyncpg.InterfaceError)
    if problem.connection_invalidated or isinstance(problem, OperationalError | InterfaceError):
        return True
    return str(getattr(problem.orig, "sqlstate", None)).startswith(PASSING)
