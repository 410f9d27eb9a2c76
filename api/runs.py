"""Runs as the interfaces see them: started, looked at, stopped."""

from __future__ import annotations

import uuid
from contextlib import aclosing

import msgspec

from api.storage.runs import PostgresRuns, StoredRun
from pipeline.errors import StagecastError
from pipeline.events import Failure, Source, StageTime
from pipeline.ports import EventBus, Filters, Run
from pipeline.runner import Outcome, Runner, Status


class TooManyRuns(StagecastError):
    """As many questions are being answered as the settings allow."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} questions are being answered at the moment, which is as many as this server takes")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A run, whole or so far: what ``POST /chat`` answers without a stream, and ``GET /runs/{run_id}`` at any time."""

    run_id: str
    session_id: str
    message_id: str
    status: Status
    answer: str
    sources: list[Source]
    stages: dict[str, StageTime]
    elapsed_ms: float
    finish_reason: str | None
    error: Failure | msgspec.UnsetType | None = msgspec.UNSET


class Runs:
    """Starts runs and knows each of them, under way or stored."""

    def __init__(self, runner: Runner, bus: EventBus, store: PostgresRuns, limit: int) -> None:
        self.bus = bus
        self._runner = runner
        self._store = store
        self._limit = limit

    async def start(self, question: str, session_id: str | None, filters: Filters) -> Run:
        """Set a run going; its first event is on the bus when this returns.

        Raises:
            TooManyRuns: There are ``limit`` already; nothing was stored.
            sqlalchemy.exc.DBAPIError: The question could not be stored.
        """
        if self._runner.count >= self._limit:
            raise TooManyRuns(self._limit)
        run = Run(
            id=uuid.uuid4().hex,
            session_id=session_id or str(uuid.uuid4()),
            message_id=uuid.uuid4().hex,
            question=question,
            filters=filters,
        )
        await self._runner.start(run)
        return run

    def stop(self, run_id: str) -> bool:
        """Stop a run under way; False when it is not."""
        return self._runner.stop(run_id)

    async def finished(self, run: Run) -> Answer:
        """Wait until the run has ended and return it."""
        async with aclosing(self.bus.read(run.id)) as batches:
            async for _ in batches:
                pass
        found = await self.find(run.id)
        assert found is not None
        return found

    async def find(self, run_id: str) -> Answer | None:
        """Return a run, None when there is none of this id."""
        stored = await self._store.find(run_id)
        if stored is None:
            return None
        return _answer(stored, self._runner.progress(run_id) or stored.outcome)


def _answer(stored: StoredRun, outcome: Outcome) -> Answer:
    return Answer(
        run_id=stored.run_id,
        session_id=stored.session_id,
        message_id=stored.message_id,
        status=outcome.status,
        answer=outcome.answer,
        sources=outcome.sources,
        stages=outcome.stages,
        elapsed_ms=outcome.elapsed_ms,
        finish_reason=outcome.finish_reason,
        error=outcome.error or msgspec.UNSET,
    )
