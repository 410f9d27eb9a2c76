"""Runs migrations on the connection that the application hands over, or on the configured database."""

from __future__ import annotations

import asyncio
from typing import Literal

from alembic import context
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import Connection

from api import settings
from api.storage import database
from api.storage.tables import VECTOR_INDEX, Base


def _belongs(_object: object, name: str | None, *_rest: object) -> bool:
    return name != VECTOR_INDEX


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    return repr(item) if kind == "type" and isinstance(item, HALFVEC) else False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
        include_object=_belongs,
        render_item=_render,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _open_and_migrate() -> None:
    async with database.opened(settings.load(), share=True, migrated=False) as engine, engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()


handed = context.config.attributes.get("connection")
if handed is None:
    asyncio.run(_open_and_migrate())
else:
    _migrate(handed)
