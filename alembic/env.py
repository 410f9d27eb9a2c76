"""Runs migrations on the connection that the application hands over, or on the configured database."""

from __future__ import annotations

from api.storage.tables import VECTOR_INDEX, Base
from sqlalchemy import Connection

from alembic import context


def _belongs(_object: object, name: str | None, *_rest: object) -> bool:
    return name != VECTOR_INDEX


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        include_object=_belongs,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_migrate(context.config.attributes["connection"])
