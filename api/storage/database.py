"""The database in use: the embedded one, or the one that the settings name."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import numpy as np
import structlog
from numpy.typing import NDArray
from pgvector import HalfVector
from sqlalchemy import URL, NullPool, event, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from api.settings import Settings
from api.storage import embedded, migrate
from api.storage.patience import REQUEST_S, PromptConnection
from pipeline.errors import ConfigurationError

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 15.0
"""Without it a query to a server that has stopped answering is never given up, whatever is awaited around it."""
MIGRATION_TIMEOUT_S = 900.0
"""For each command of a migration, which may have to build the index of a large table."""
UNTRIED_S = 1.0
"""A connection that was given back less than that ago is taken as it is: trying it out takes four round trips."""
SERVER_SETTINGS = {
    "application_name": "stagecast",
    "lock_timeout": "5s",
    "random_page_cost": "1.1",  # of disks without heads; with 4, small collections are compared vector by vector
    "jit": "off",  # compiling a search takes longer than the search
    "client_connection_check_interval": "500ms",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "60",  # of those that wait at the pool's bottom for a burst; networks forget silent ones
    "hnsw.ef_search": "300",  # with 100 the index misses one in twenty of the ten nearest among 100,000 vectors
    "hnsw.iterative_scan": "strict_order",
}


class DatabaseUnreachable(ConfigurationError):
    """The configured database does not answer, or refuses us."""

    def __init__(self, url: str, reason: str) -> None:
        shown = make_url(url).render_as_string(hide_password=True)
        super().__init__(f"cannot use the database {shown} (STAGECAST_DATABASE_URL): {reason}")


def connect(url: str | URL, pool: int, *, command_timeout_s: float = COMMAND_TIMEOUT_S) -> AsyncEngine:
    """Return an engine with at most ``pool`` connections; whoever waits too long for one gets an error.

    ``pool`` 0: whoever connects gets a new connection, which is closed and not kept.
    """
    # The one that was given back last is taken first: its backend has all of it in the processor's caches.
    shared = {"pool_size": pool, "max_overflow": 0, "pool_timeout": REQUEST_S, "pool_use_lifo": True}
    engine = create_async_engine(
        url,
        **(shared if pool else {"poolclass": NullPool}),
        hide_parameters=True,
        connect_args={
            "timeout": CONNECT_TIMEOUT_S,
            "command_timeout": command_timeout_s,
            "connection_class": PromptConnection,
            "max_cached_statement_lifetime": 0,  # as long as the connection, instead of five minutes
            "server_settings": {**SERVER_SETTINGS, "statement_timeout": f"{command_timeout_s:.0f}s"},
        },
    )
    if pool:
        _try_idle_ones(engine)
        _know_vectors(engine)
    return engine


def _try_idle_ones(engine: AsyncEngine) -> None:
    """Have connections tried out that were idle; a broken one is replaced, and all that are as old with it."""

    @event.listens_for(engine.sync_engine, "checkin")
    def note(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def try_out(connection: Any, record: Any, _fairy: Any) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since", math.inf)  # a new one has not been idle
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if idle_s > UNTRIED_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as broken:
                raise InvalidatePoolError from broken


def _know_vectors(engine: AsyncEngine) -> None:
    """Have vectors sent as they are: number by number they take half the time of a search."""

    @event.listens_for(engine.sync_engine, "connect")
    def know(connection: Any, _record: Any) -> None:
        connection.run_async(_set_codec)


async def _set_codec(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    with suppress(ValueError):  # the database has no such type yet
        await connection.set_type_codec(
            "halfvec", encoder=_halfvec, decoder=HalfVector.from_binary, schema="public", format="binary"
        )


def _halfvec(vector: NDArray[np.float32] | HalfVector | str) -> bytes:
    """Return PostgreSQL's binary form, also of what pgvector's own types are sent as."""
    if isinstance(vector, str):
        return HalfVector.from_text(vector).to_binary()
    return (vector if isinstance(vector, HalfVector) else HalfVector(vector)).to_binary()


@asynccontextmanager
async def opened(settings: Settings, *, share: bool = False, migrated: bool = True) -> AsyncGenerator[AsyncEngine]:
    """Start or reach the database, migrate it unless told otherwise, and lend its engine.

    ``share``: when another process of ours runs the embedded server on the same folder, use that one.

    Raises:
        ConfigurationError: It cannot be started, reached or migrated; the message says why and what to do.
    """
    if settings.database_url:
        async with _engine(settings.database_url, settings.database_pool, migrated=migrated) as engine:
            yield engine
    elif share and (url := await asyncio.to_thread(embedded.attach, settings.data_dir)):
        async with _engine(url, settings.database_pool, migrated=migrated) as engine:
            yield engine
    else:
        server = embedded.EmbeddedPostgres(settings.data_dir)
        url = await asyncio.to_thread(server.start)
        try:
            async with _engine(url, settings.database_pool, migrated=migrated) as engine:
                yield engine
        finally:
            await asyncio.to_thread(server.stop)


@asynccontextmanager
async def _engine(url: str, pool: int, *, migrated: bool) -> AsyncGenerator[AsyncEngine]:
    engine = connect(url, pool)
    try:
        try:
            patient = connect(url, 0, command_timeout_s=MIGRATION_TIMEOUT_S)
            await (migrate.upgrade(patient) if migrated else migrate.create_pgvector(engine))
        except (OSError, TimeoutError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as problem:
            raise DatabaseUnreachable(url, _reason(problem)) from problem
        yield engine
    finally:
        await engine.dispose()


def _reason(problem: BaseException) -> str:
    origin = getattr(problem, "orig", None) or problem
    return str(origin.__cause__ or origin) or type(origin).__name__
