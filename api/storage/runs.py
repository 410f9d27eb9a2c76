"""Stores runs and the conversation they belong to."""

from __future__ import annotations

import msgspec
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from api.storage import tables
from pipeline.events import Failure, Source, StageTime
from pipeline.ports import Message, Run
from pipeline.runner import Outcome

HISTORY_TURNS = 40
"""Turns of a conversation that are read at all; what the LLM sees of them is bounded by tokens."""


class StoredRun(msgspec.Struct, frozen=True):
    """A run as it was stored."""

    run_id: str
    session_id: str
    message_id: str
    outcome: Outcome


class PostgresRuns:
    """Keeps the :class:`~pipeline.runner.RunStore` port in the database; holds no connection between its calls."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, run: Run) -> None:
        """Store session, question and run in one transaction; read the conversation before it."""
        async with self._engine.begin() as connection:
            session = insert(tables.Session).values(id=run.session_id)
            touched = session.on_conflict_do_update(index_elements=["id"], set_={"updated_at": func.now()})
            await connection.execute(touched)
            past = (
                select(tables.Message.role, tables.Message.content)
                .where(tables.Message.session_id == run.session_id, tables.Message.content != "")
                .order_by(tables.Message.number.desc())
                .limit(HISTORY_TURNS)
            )
            rows = (await connection.execute(past)).all()
            run.history = [Message(role, content) for role, content in reversed(rows)]
            ids = {"id": run.id, "session_id": run.session_id, "message_id": run.message_id}
            await connection.execute(insert(tables.Run).values(status="running", **ids))
            await connection.execute(
                insert(tables.Message).values(
                    id=f"{run.message_id}-q",
                    session_id=run.session_id,
                    run_id=run.id,
                    role="user",
                    content=run.question,
                    status="completed",
                )
            )

    async def finish(self, run: Run, outcome: Outcome) -> None:
        """Store the answer and the run's end in one transaction; a second call changes nothing more."""
        columns = msgspec.to_builtins(outcome)
        answer = columns.pop("answer")
        async with self._engine.begin() as connection:
            message = insert(tables.Message).values(
                id=run.message_id,
                session_id=run.session_id,
                run_id=run.id,
                role="assistant",
                content=answer,
                status=outcome.status,
            )
            await connection.execute(message.on_conflict_do_nothing())
            ended = tables.Run.__table__.update().where(tables.Run.id == run.id, tables.Run.status == "running")  # type: ignore[attr-defined]  # a Table, declared as FromClause
            await connection.execute(ended.values(columns))

    async def find(self, run_id: str) -> StoredRun | None:
        """Return a run, None when there is none."""
        found = select(tables.Run, tables.Message.content).outerjoin(
            tables.Message, tables.Message.id == tables.Run.message_id
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(found.where(tables.Run.id == run_id))).mappings().first()
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


async def reachable(engine: AsyncEngine) -> bool:
    """Say whether the database answers."""
    try:
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))
    except Exception:  # noqa: BLE001  # whatever is wrong, the answer is no
        return False
    return True
