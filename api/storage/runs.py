"""Stores runs and the conversation they belong to."""

from __future__ import annotations

import asyncio
import math
import re
import zlib
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import tables
from api.storage.patience import LimitedEngine
from api.storage.sessions import title_of
from pipeline.ending import Outcome
from pipeline.errors import NobodyWaits, RunGone, StagecastError
from pipeline.events import Failure, Source, StageTime
from pipeline.ports import Message, Run
from pipeline.recording import encode, recorded
from pipeline.text import clean

HISTORY_TURNS = 40
"""Turns of a conversation that are read at all; what the LLM sees of them is bounded by tokens."""


REACHABLE_S = 0.7

MAX_INT = 2**31 - 1
LARGE_BYTES = 256 * 1024
"""Compressing more would hold the loop for milliseconds."""


BEGIN = f"""
with touched as (
    insert into session (owner, id, title) values ($1, $2, $3) on conflict (owner, id) do update set updated_at = now()
), begun as (
    insert into run (id, owner, session_id, message_id, status, worker, idempotency_key, request_digest)
    values ($4, $1, $2, $5, 'running', $6, $7, $8) returning id
), asked as (
    insert into message (id, owner, session_id, run_id, role, content, status)
    values ($9, $1, $2, $4, 'user', $10, 'completed')
)
select role, content, whole from begun, lateral turns_before(begun.id, $1, $2, {HISTORY_TURNS})
"""  # noqa: S608  # a number of ours
"""Foreign keys are checked when all is done. That the run is stored may have to wait for the end of the one before it,
whose answer belongs to the conversation: therefore what was said is read by a function, and after that."""

FINISH = """
with ended as (
    update run set status = $3, elapsed_ms = $4, first_token_ms = $5, token_count = $6, finish_reason = $7,
                   prompt_tokens = $8, completion_tokens = $9, sources = $10::jsonb, stages = $11::jsonb,
                   error = $12::jsonb, events = $13, recording = $18, finished_at = now()
     where id = $1 and worker = $2 returning id
)
insert into message (id, run_id, content, owner, session_id, role, status)
select $14, id, $15, $16, $17, 'assistant', $3 from ended
    on conflict (id) do update set content = excluded.content, status = excluded.status
returning id
"""

_REFUSED = re.compile(rb'\\u0000|"(?:score|elapsed_ms)":null')
"""In JSON: a NUL, which PostgreSQL refuses, and what msgspec makes of a number without end."""


class StoredRun(msgspec.Struct, frozen=True):
    """A run as it was stored."""

    run_id: str
    owner: str
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

    def __init__(self, engine: LimitedEngine, worker: int) -> None:
        self._engine = engine
        self._worker = worker

    async def begin(self, run: Run) -> None:
        """Store session, question and run; read the conversation before it, behind what the run has brought along.

        Raises:
            SessionBusy, KeyTaken: Nothing was stored.
            NobodyWaits: Likewise; the run was not wanted any more once there was a connection for it.
        """
        key, digest = run.idempotency or (None, None)
        question = (run.owner, run.session_id, title_of(run.question), run.id, run.message_id, self._worker)
        try:
            async with self._engine.direct() as connection:
                if not run.wanted:
                    raise NobodyWaits
                past = await connection.fetch(BEGIN, *question, key, digest, f"{run.message_id}-q", run.question)
        except asyncpg.IntegrityConstraintViolationError as refused:
            raise await self._why_refused(run) from refused
        run.history = [*run.history, *(Message(role, content, whole) for role, content, whole in reversed(past))]

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
        """Store answer, end and events; what the last call says stands, whoever closed the run.

        Raises:
            RunGone: It was deleted with its session.
        """
        numbers = (outcome.elapsed_ms, outcome.first_token_ms, outcome.token_count, outcome.finish_reason)
        counted = (outcome.prompt_tokens, outcome.completion_tokens)
        shown = (_json(outcome.sources), _json(outcome.stages), _json(outcome.error) if outcome.error else None)
        told = (run.message_id, clean(outcome.answer), run.owner, run.session_id)
        values = (run.id, self._worker, outcome.status, *storable([*numbers, *counted]), *shown)
        recording = encode(recorded(run, outcome.left))
        kept = (await packed(b"".join(frames)), *told, await packed(recording) if recording else None)
        if not await self._engine.fetch(FINISH, *values, *kept):
            raise RunGone(run.id)

    async def events(self, run_id: str) -> list[bytes] | None:
        """Return the frames of a finished run; None when they are not stored, or not any more."""
        stored = select(tables.Run.events).where(tables.Run.id == run_id)
        async with self._engine.connect() as connection:
            found = await connection.scalar(stored)
        return None if found is None else _frames(await unpacked(found))

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
        return StoredRun(row["id"], row["owner"], row["session_id"], row["message_id"], outcome)


def _json(value: object) -> str:
    """Return what PostgreSQL takes for JSON."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a surrogate pair
        encoded = b""
    if not encoded or _REFUSED.search(encoded):
        encoded = msgspec.json.encode(storable(msgspec.to_builtins(value)))
    return encoded.decode()


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


async def packed(whole: bytes) -> bytes:
    """Return bytes as they are stored."""
    return zlib.compress(whole, 1) if len(whole) < LARGE_BYTES else await asyncio.to_thread(zlib.compress, whole, 1)


async def unpacked(stored: bytes) -> bytes:
    """Return bytes as they were before they were stored."""
    return await asyncio.to_thread(zlib.decompress, stored)


def _frames(whole: bytes) -> list[bytes]:
    """Return the frames: each ends with an empty line, and none has one inside."""
    return [frame + b"\n\n" for frame in whole.split(b"\n\n")[:-1]]


async def reachable(engine: AsyncEngine) -> bool:
    """Say whether the database answers, and soon."""
    try:
        async with asyncio.timeout(REACHABLE_S), engine.connect() as connection:
            await connection.execute(text("select 1"))
    except Exception:  # noqa: BLE001  # whatever is wrong, the answer is no
        return False
    return True
