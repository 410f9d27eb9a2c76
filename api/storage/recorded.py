"""Reads stored runs for the command line: those of every owner, with what their stages left."""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import select

from api.storage import tables
from api.storage.patience import LimitedEngine
from api.storage.runs import PostgresRuns, StoredRun, unpacked
from pipeline.errors import StagecastError
from pipeline.recording import Recording, decode

LIST = """
with latest as (
    select * from run where ($2::text is null or owner = $2) and ($3::text is null or status = $3)
     order by created_at desc, id limit $1
)
select r.id, r.created_at, r.status, r.elapsed_ms, r.first_token_ms, r.token_count, r.owner, r.session_id,
       m.content as question
  from latest r left join message m
       on m.owner = r.owner and m.session_id = r.session_id and m.run_id = r.id and m.role = 'user'
 order by r.created_at desc, r.id
"""


class Listed(msgspec.Struct, frozen=True):
    """A run in a list; times in ms, None where it has none."""

    run_id: str
    asked_at: datetime
    status: str
    elapsed_ms: float | None
    first_token_ms: float | None
    token_count: int | None
    owner: str
    session_id: str
    question: str | None


class UnknownRunId(StagecastError):
    """There is no run of an id, or several begin like it."""

    def __init__(self, run_id: str, found: int) -> None:
        several = "several runs' ids begin with" if found else "no run has the id"
        super().__init__(f"{several} {run_id!r}; `stagecast runs` lists them")


class NotKept(StagecastError):
    """A run's events, or what its stages left, are not stored, or not any more."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(
            f"the {what} of run {run_id} are not kept: it is under way, was lost, is older than "
            "STAGECAST_EVENT_RETENTION_S, or they were more than a megabyte, as with many STAGECAST_CANDIDATES"
        )


class RecordedRuns:
    """The stored runs of a database, whoever owns them."""

    def __init__(self, engine: LimitedEngine) -> None:
        self._engine = engine
        self._runs = PostgresRuns(engine, worker=0)

    async def latest(self, limit: int, owner: str | None = None, status: str | None = None) -> list[Listed]:
        """Return the runs that were asked last, latest first."""
        return [Listed(*row) for row in await self._engine.fetch(LIST, limit, owner, status)]

    async def find(self, beginning: str) -> StoredRun:
        """Return the run whose id is, or alone begins with, what is given.

        Raises:
            UnknownRunId: There is none, or there are several.
        """
        wanted = select(tables.Run.id, tables.Run.owner).where(tables.Run.id.startswith(beginning, autoescape=True))
        async with self._engine.connect() as connection:
            rows = (await connection.execute(wanted.limit(2))).all()
        if len(rows) != 1 or not (found := await self._runs.find(rows[0].owner, rows[0].id)):
            raise UnknownRunId(beginning, len(rows))
        return found

    async def frames(self, run_id: str) -> list[bytes]:
        """Return a run's events as they were sent.

        Raises:
            NotKept: They are not stored.
        """
        frames = await self._runs.events(run_id)
        if frames is None:
            raise NotKept(run_id, "events")
        return frames

    async def recording(self, run_id: str) -> Recording:
        """Return what a run's stages left.

        Raises:
            NotKept: It is not stored.
        """
        stored = select(tables.Run.recording).where(tables.Run.id == run_id)
        async with self._engine.connect() as connection:
            found = await connection.scalar(stored)
        recording = decode(await unpacked(found)) if found else None
        if recording is None:
            raise NotKept(run_id, "passages")
        return recording
