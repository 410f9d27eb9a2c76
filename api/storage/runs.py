"""Stores runs and the conversation they belong to."""

from __future__ import annotations

import asyncio
import math
import zlib
from typing import Any

import msgspec
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.storage import tables
from api.storage.sessions import title_of
from pipeline.ending import Outcome
from pipeline.errors import NobodyWaits, RunGone, StagecastError
from pipeline.events import Failure, Source, StageTime
from pipeline.ports import Message, Run
from pipeline.text import clean

HISTORY_TURNS = 40
"""Turns of a conversation that are read at all; what the LLM sees of them is bounded by tokens."""


REACHABLE_S = 0.7

MAX_INT = 2**31 - 1
LARGE_BYTES = 256 * 1024
"""Of events: compressing more would hold the loop for milliseconds."""


class StoredRun(msgspec.Struct, frozen=True):
    """A run as it was stored."""

    run_id: str
    session_id: str
    message_id: str
    outcome: Outcome


class SessionBusy(StagecastError):
    """Another question of this session is being answered."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} is being answered in this session")
        self.run_id = run_id


class KeyTaken(StagecastError):
    """A request with this idempotency key was accepted before; ``same``: it was this very request."""

    def __init__(self, run_id: str, *, same: bool) -> None:
        super().__init__(f"run {run_id} has this idempotency key")
        self.run_id = run_id
        self.same = same


class PostgresRuns:
    """Keeps the :class:`~pipeline.runner.RunStore` port in the database; holds no connection between its calls."""

    def __init__(self, engine: AsyncEngine, worker: int) -> None:
        self._engine = engine
        self._worker = worker

    async def begin(self, run: Run) -> None:
        """Store session, question and run in one transaction; read the conversation before it.

        Raises:
            SessionBusy, KeyTaken: Nothing was stored.
            NobodyWaits: Likewise; the run was not wanted any more once there was a connection for it.
        """
        try:
            async with self._engine.begin() as connection:
                if not run.wanted:
                    raise NobodyWaits
                await self._insert(connection, run)
        except IntegrityError as refused:
            raise await self._why_refused(run) from refused

    async def _insert(self, connection: AsyncConnection, run: Run) -> None:
        session = insert(tables.Session).values(owner=run.owner, id=run.session_id, title=title_of(run.question))
        touched = session.on_conflict_do_update(index_elements=["owner", "id"], set_={"updated_at": func.now()})
        await connection.execute(touched)
        past = (
            select(tables.Message.role, tables.Message.content, tables.Message.status)
            .where(
                tables.Message.owner == run.owner,
                tables.Message.session_id == run.session_id,
                tables.Message.content != "",
            )
            .order_by(tables.Message.number.desc())
            .limit(HISTORY_TURNS)
        )
        rows = (await connection.execute(past)).all()
        run.history = [Message(role, content, status == "completed") for role, content, status in reversed(rows)]
        key, digest = run.idempotency or (None, None)
        await connection.execute(
            insert(tables.Run).values(
                id=run.id,
                owner=run.owner,
                session_id=run.session_id,
                message_id=run.message_id,
                status="running",
                worker=self._worker,
                idempotency_key=key,
                request_digest=digest,
            )
        )
        await connection.execute(
            insert(tables.Message).values(
                id=f"{run.message_id}-q",
                owner=run.owner,
                session_id=run.session_id,
                run_id=run.id,
                role="user",
                content=run.question,
                status="completed",
            )
        )

    async def taken(self, run: Run) -> KeyTaken | None:
        """Return that the run's idempotency key is taken already, if it is."""
        if run.idempotency is None:
            return None
        key, digest = run.idempotency
        same_key = select(tables.Run.id, tables.Run.request_digest).where(
            tables.Run.owner == run.owner, tables.Run.idempotency_key == key
        )
        async with self._engine.connect() as connection:
            found = (await connection.execute(same_key)).first()
        return KeyTaken(found.id, same=found.request_digest == digest) if found else None

    async def _why_refused(self, run: Run) -> StagecastError:
        if taken := await self.taken(run):
            return taken
        async with self._engine.connect() as connection:
            running = select(tables.Run.id).where(
                tables.Run.owner == run.owner,
                tables.Run.session_id == run.session_id,
                tables.Run.status == "running",
            )
            return SessionBusy(await connection.scalar(running) or "")

    async def finish(self, run: Run, outcome: Outcome, frames: list[bytes]) -> None:
        """Store answer, end and events in one transaction; what the last call says stands, whoever closed the run.

        Raises:
            RunGone: It was deleted with its session.
        """
        columns: dict[str, Any] = storable(msgspec.to_builtins(outcome))
        answer = columns.pop("answer")
        columns |= {"events": await _packed(frames), "finished_at": func.now()}
        ended = update(tables.Run).where(tables.Run.id == run.id, tables.Run.worker == self._worker)
        async with self._engine.begin() as connection:
            if not (await connection.execute(ended.values(columns))).rowcount:
                raise RunGone(run.id)
            message = insert(tables.Message).values(
                id=run.message_id,
                owner=run.owner,
                session_id=run.session_id,
                run_id=run.id,
                role="assistant",
                content=answer,
                status=outcome.status,
            )
            said = {"content": answer, "status": outcome.status}
            await connection.execute(message.on_conflict_do_update(index_elements=["id"], set_=said))

    async def events(self, run_id: str) -> list[bytes] | None:
        """Return the frames of a finished run; None when they are not stored, or not any more."""
        stored = select(tables.Run.events).where(tables.Run.id == run_id)
        async with self._engine.connect() as connection:
            packed = await connection.scalar(stored)
        return None if packed is None else await _unpacked(packed)

    async def find(self, owner: str, run_id: str) -> StoredRun | None:
        """Return a run, None when its owner has none of this id."""
        found = select(tables.Run, tables.Message.content).outerjoin(
            tables.Message, tables.Message.id == tables.Run.message_id
        )
        async with self._engine.connect() as connection:
            wanted = found.where(tables.Run.id == run_id, tables.Run.owner == owner)
            row = (await connection.execute(wanted)).mappings().first()
        if row is None:
            return None
        outcome = Outcome(
            status=row["status"],
            answer=row["content"] or "",
            sources=msgspec.convert(row["sources"], list[Source]),
            stages=msgspec.convert(row["stages"], dict[str, StageTime]),
            elapsed_ms=row["elapsed_ms"] or 0.0,
            token_count=row["token_count"] or 0,
            first_token_ms=row["first_token_ms"],
            finish_reason=row["finish_reason"],
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            error=msgspec.convert(row["error"], Failure | None),
        )
        return StoredRun(row["id"], row["session_id"], row["message_id"], outcome)


def storable(value: Any) -> Any:
    """Return a value without what PostgreSQL refuses, which a plugin may have put there: NUL, NaN, endless numbers."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, MAX_INT), -MAX_INT)
    if isinstance(value, dict):
        return {clean(name): storable(held) for name, held in value.items()}
    return [storable(held) for held in value] if isinstance(value, list) else value


async def _packed(frames: list[bytes]) -> bytes:
    whole = b"".join(frames)
    return zlib.compress(whole, 1) if len(whole) < LARGE_BYTES else await asyncio.to_thread(zlib.compress, whole, 1)


async def _unpacked(packed: bytes) -> list[bytes]:
    """Return the frames: each ends with an empty line, and none has one inside."""
    whole = await asyncio.to_thread(zlib.decompress, packed)
    return [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]


async def reachable(engine: AsyncEngine) -> bool:
    """Say whether the database answers, and soon."""
    try:
        async with asyncio.timeout(REACHABLE_S), engine.connect() as connection:
            await connection.execute(text("select 1"))
    except Exception:  # noqa: BLE001  # whatever is wrong, the answer is no
        return False
    return True
