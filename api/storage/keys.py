"""The keys that were made by command: stored as digests, shown once."""

from __future__ import annotations

import secrets
from datetime import datetime

import msgspec
from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from api.access import digest_of
from api.storage import tables

KEY_BYTES = 32
PREFIX = "sc-"
"""So that whoever finds a key somewhere knows what it opens."""


class KeyRow(msgspec.Struct, frozen=True):
    """A key without itself; ``id`` names it where its owner has several."""

    id: str
    owner: str
    created_at: datetime


class Keys:
    """The stored keys."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, owner: str) -> tuple[str, str]:
        """Make a key for an owner; return its id and the key, which is shown this once."""
        key, key_id = PREFIX + secrets.token_urlsafe(KEY_BYTES), secrets.token_hex(4)
        row = insert(tables.ApiKey).values(id=key_id, owner=owner, digest=digest_of(key))
        async with self._engine.begin() as connection:
            await connection.execute(row)
        return key_id, key

    async def all(self) -> list[KeyRow]:
        """Return every key, by owner, oldest first."""
        row = tables.ApiKey
        wanted = select(row.id, row.owner, row.created_at).order_by(row.owner, row.created_at, row.id)
        async with self._engine.connect() as connection:
            return [KeyRow(*found) for found in await connection.execute(wanted)]

    async def remove(self, name: str) -> int:
        """Remove the key of this id, or every key of this owner; return how many there were."""
        gone = delete(tables.ApiKey).where(or_(tables.ApiKey.id == name, tables.ApiKey.owner == name))
        async with self._engine.begin() as connection:
            return (await connection.execute(gone)).rowcount

    async def digests(self) -> dict[bytes, str]:
        """Return the owner behind each key's digest."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(tables.ApiKey.digest, tables.ApiKey.owner))
            return {row.digest: row.owner for row in rows}

    async def count(self) -> int:
        """Return how many keys there are."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(tables.ApiKey)) or 0
