"""Reads and changes conversations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import tables
from pipeline.events import Failure, Source

TITLE_CHARS = 80


class SessionRow(msgspec.Struct, frozen=True):
    """A conversation; ``running`` is the run that is answering in it, if any."""

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    messages: int
    running: str | None


class SessionPage(msgspec.Struct, frozen=True):
    """Some of the conversations, the one that was used last first, and how many there are in all."""

    sessions: list[SessionRow]
    total: int
    limit: int
    offset: int


class MessageRow(msgspec.Struct, frozen=True):
    """A turn; an answer has its sources, a status that says whether it is whole, and what went wrong if it is not."""

    id: str
    run_id: str
    role: str
    content: str
    status: str
    created_at: datetime
    sources: list[Source]
    error: Failure | None


class MessagePage(msgspec.Struct, frozen=True):
    """Some of a conversation's turns, oldest first, and how many there are in all."""

    messages: list[MessageRow]
    total: int
    limit: int
    offset: int


def title_of(question: str) -> str:
    """Return a title for a conversation that begins with this question: one line, cut at a word."""
    line = " ".join(question.split())
    return line if len(line) <= TITLE_CHARS else line[: TITLE_CHARS - 1].rsplit(" ", 1)[0] + "…"


class Sessions:
    """One owner's conversations, as the interfaces see them."""

    def __init__(self, engine: AsyncEngine, owner: str) -> None:
        self._engine = engine
        self._owner = owner

    async def page(self, limit: int, offset: int) -> SessionPage:
        """Return ``limit`` conversations from the ``offset``-th on."""
        newest = (tables.Session.updated_at.desc(), tables.Session.id)
        async with self._engine.connect() as connection:
            rows = await connection.execute(self._rows().order_by(*newest).limit(limit).offset(offset))
            total = await connection.scalar(select(func.count()).where(tables.Session.owner == self._owner))
        return SessionPage([SessionRow(*row) for row in rows], total or 0, limit, offset)

    async def find(self, session_id: str) -> SessionRow | None:
        """Return a conversation, None when there is none of this id."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(self._rows().where(tables.Session.id == session_id))).first()
        return None if row is None else SessionRow(*row)

    async def messages(self, session_id: str, limit: int, offset: int) -> MessagePage:
        """Return ``limit`` turns from the ``offset``-th on; none for a conversation that does not exist."""
        turn, run = tables.Message, tables.Run
        columns = (turn.id, turn.run_id, turn.role, turn.content, turn.status, turn.created_at, run.sources, run.error)
        own = (turn.owner == self._owner, turn.session_id == session_id)
        wanted = select(*columns).join(run, run.id == turn.run_id).where(*own).order_by(turn.number)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(wanted.limit(limit).offset(offset))).all()
            total = await connection.scalar(select(func.count()).select_from(turn).where(*own))
        return MessagePage([_message(row) for row in rows], total or 0, limit, offset)

    async def rename(self, session_id: str, title: str) -> None:
        """Give a conversation another title."""
        async with self._engine.begin() as connection:
            await connection.execute(update(tables.Session).where(*self._own(session_id)).values(title=title))

    async def delete(self, session_id: str) -> bool:
        """Delete a conversation with its messages and runs; False when a question is being answered in it."""
        run = tables.Run
        answering = exists().where(run.owner == self._owner, run.session_id == session_id, run.status == "running")
        async with self._engine.begin() as connection:
            gone = await connection.execute(delete(tables.Session).where(*self._own(session_id), ~answering))
            return bool(gone.rowcount)

    def _own(self, session_id: str) -> tuple[Any, Any]:
        return tables.Session.owner == self._owner, tables.Session.id == session_id

    def _rows(self) -> Any:
        session, turn, run = tables.Session, tables.Message, tables.Run
        turns = (turn.owner == session.owner, turn.session_id == session.id)
        answering = (run.owner == session.owner, run.session_id == session.id, run.status == "running")
        count = select(func.count()).where(*turns).scalar_subquery()
        running = select(run.id).where(*answering).limit(1).scalar_subquery()
        columns = (session.id, session.title, session.created_at, session.updated_at, count, running)
        return select(*columns).where(session.owner == self._owner)


def _message(row: Any) -> MessageRow:
    answer = row.role == "assistant"
    return MessageRow(
        id=row.id,
        run_id=row.run_id,
        role=row.role,
        content=row.content,
        status=row.status,
        created_at=row.created_at,
        sources=msgspec.convert(row.sources, list[Source]) if answer else [],
        error=msgspec.convert(row.error, Failure | None) if answer else None,
    )
