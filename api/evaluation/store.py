"""A store of its own for each collection that is evaluated: a database beside the one in use."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from rich.console import Console
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.ingest.ingest import FORMAT, ingest
from api.ingest.readers import count, find
from api.ingest.report import show
from api.settings import Settings
from api.storage import database
from api.system import System, check_plugins, running
from pipeline import registry
from pipeline.errors import ConfigurationError
from pipeline.host import Host
from pipeline.threads import Threads

PREFIX = "stagecast_eval_"
NAME = f"^{PREFIX}[0-9a-f]{{16}}$"
MADE_MEANWHILE = ("42P04", "23505")
"""SQLSTATEs that tell of a database of the same name, made by another evaluation in the same moment."""


@asynccontextmanager
async def filled(settings: Settings, paths: Sequence[Path], console: Console, *, fresh: bool) -> AsyncGenerator[System]:
    """Lend a system whose collection is what is in ``paths``, and nothing else.

    Its database is named after the files' content and the embedder, so that what was ingested once is used again, and
    what was begun is finished. ``fresh``: drop it first.

    Raises:
        ConfigurationError: It cannot be made, or a document cannot be stored.
    """
    check_plugins(settings)
    files = list(find(paths))
    if not files:
        raise ConfigurationError(
            f"there is no document in {', '.join(map(str, paths))}: none that `stagecast ingest` would read"
        )
    async with database.opened(settings, share=True, migrated=False) as engine:
        name = _name(settings, files)
        url = await _made(engine, name, fresh=fresh)
        console.print(
            f"Store: database {name}; `stagecast eval --drop` removes the stores of all evaluations.", soft_wrap=True
        )
        async with running(settings.model_copy(update={"database_url": url})) as system:
            async with aclosing(ingest(system, paths)) as batches:
                if await show(batches, sum(count(file) for file, _ in files), console):
                    raise ConfigurationError("the documents above could not be stored; correct them, or leave them out")
            yield system


async def drop_all(settings: Settings) -> list[str]:
    """Drop the stores of all evaluations on the server, those under way included; return their names."""
    async with database.opened(settings, share=True, migrated=False) as engine, _committing(engine) as connection:
        found = text("select datname from pg_database where datname ~ :name order by datname")
        names = list(await connection.scalars(found, {"name": NAME}))
        for name in names:
            await connection.execute(text(f"drop database if exists {name} with (force)"))
    return names


def _name(settings: Settings, files: Sequence[tuple[Path, Path]]) -> str:
    """Return a name that changes with whatever changes what is stored."""
    digest = hashlib.sha256(repr((FORMAT, _embedder(settings), settings.embedding_dimension)).encode())
    for file, root in files:
        digest.update(f"\0{file.relative_to(root) if root != Path() else file.name}\0".encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return PREFIX + digest.hexdigest()[:16]


def _embedder(settings: Settings) -> str:
    """Return what names the vectors; the embedder is made for this, and loads nothing yet."""
    threads = Threads(1)
    try:
        host = Host(settings.options, threads, {}, given=settings.of_plugins)
        return str(registry.make("embedder", settings.plugins["embedder"], host).name)
    finally:
        threads.close()


async def _made(engine: AsyncEngine, name: str, *, fresh: bool) -> str:
    """Return the address of the database, which is made when there is none."""
    there = text("select true from pg_database where datname = :name")
    async with _committing(engine) as connection:
        if fresh:
            await connection.execute(text(f"drop database if exists {name} with (force)"))
        if not await connection.scalar(there, {"name": name}):
            try:
                await connection.execute(text(f"create database {name} template template0"))
            except DBAPIError as refused:
                if getattr(refused.orig, "sqlstate", "") not in MADE_MEANWHILE:
                    raise _refused(engine.url, refused) from refused
    return engine.url.set(database=name).render_as_string(hide_password=False)


def _committing(engine: AsyncEngine) -> AsyncConnection:
    """Return a connection without transactions, in which no database can be made or dropped."""
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


def _refused(url: URL, problem: DBAPIError) -> ConfigurationError:
    return ConfigurationError(
        f"{url.username} may not make a database for the evaluation on {url.host or 'the server'}: {problem.orig}; "
        f"let a superuser run `alter role {url.username} createdb`, or unset STAGECAST_DATABASE_URL: then the embedded "
        "server is used"
    )
