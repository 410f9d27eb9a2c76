"""Brings a database to the tables of this version, and back."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from pipeline.errors import ConfigurationError

OLDEST_PGVECTOR = (0, 7)
"""The first with half-precision vectors."""
LOCK = 7_224_113_001
"""Of ``pg_advisory_lock``: two servers that start at once migrate one after the other."""


class PgvectorMissing(ConfigurationError):
    """The database cannot hold vectors."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"the database has no usable pgvector extension (found: {version or 'none'}, needed: 0.7 or newer); "
            "install it on the database server, and let a superuser run: create extension vector"
        )


class NewerTables(ConfigurationError):
    """The database was brought up to date by a version that came after this one."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the database's tables are of a newer version than this one ({reason}): run that version again, or "
            "restore what was saved before it"
        )


def config(connection: Connection | None = None) -> Config:
    """Return alembic's configuration for this connection."""
    here = Path(__file__).parent.parent
    packaged = here / "migrations"
    made = Config()
    made.set_main_option("script_location", str(packaged if packaged.is_dir() else here.parent / "alembic"))
    made.set_main_option("path_separator", "os")
    made.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    made.attributes["connection"] = connection
    return made


async def upgrade(engine: AsyncEngine) -> None:
    """Bring the database to the newest revision.

    Raises:
        PgvectorMissing: The server does not have the extension.
        NewerTables: They have a revision that is not known here.
    """
    async with engine.connect() as connection:
        await connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": LOCK})
        await connection.commit()
        try:
            await connection.run_sync(_upgrade)
        finally:
            await connection.rollback()
            await connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": LOCK})
            await connection.commit()
    await engine.dispose()  # connections from before there were vectors cannot send any


async def create_pgvector(engine: AsyncEngine) -> None:
    """Create the extension, if need be, and nothing else; raises as :func:`upgrade`."""
    async with engine.begin() as connection:
        await connection.run_sync(_create_pgvector)
    await engine.dispose()


def revisions(connection: Connection) -> tuple[str | None, str | None]:
    """Return the revision of the database's tables, None where there are none, and the newest that is known here."""
    known = ScriptDirectory.from_config(config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision(), known


def _upgrade(connection: Connection) -> None:
    _create_pgvector(connection)
    try:
        command.upgrade(config(connection), "head")
    except CommandError as unknown:
        raise NewerTables(str(unknown)) from unknown
    connection.commit()


def _create_pgvector(connection: Connection) -> None:
    found = "select coalesce(installed_version, default_version) from pg_available_extensions where name = 'vector'"
    version: str = connection.scalar(text(found)) or ""
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST_PGVECTOR:
        raise PgvectorMissing(version)
    connection.execute(text("create extension if not exists vector"))
