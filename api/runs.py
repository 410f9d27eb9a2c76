"""Runs as the interfaces see them: started, looked at, stopped."""

from __future__ import annotations

import asyncio
import uuid
from weakref import WeakValueDictionary

import msgspec

from api.replay import BeyondTheEnd, Elsewhere, Expired, Lost, Readable, Stored
from api.storage.runs import PostgresRuns, SessionBusy, StoredRun
from pipeline.ending import Outcome, Status
from pipeline.errors import StagecastError
from pipeline.events import Failure, Source, StageTime
from pipeline.ports import EventBus, Filters, Run
from pipeline.runner import Runner

TAKE_OVER_S = 5.0
"""How long a question waits for the run that is being stopped in its session."""
LEAVING_S = 0.15
"""How long a question waits for one whose reader may be leaving just now, to ask again at once."""
STARTING_POLLS, STARTING_POLL_S = 20, 0.05
"""For a run that is stored and not on the bus: it is about to begin, or another server's."""


class TooManyRuns(StagecastError):
    """As many questions are being answered as the settings allow."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} questions are being answered at the moment, which is as many as this server takes")


class TooManyOfOwner(StagecastError):
    """One caller has as many questions answered at once as the settings allow it."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} of your questions are being answered at the moment, as many as you may have")


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


def new_run(
    owner: str, question: str, session_id: str | None, filters: Filters, idempotency: tuple[str, bytes] | None = None
) -> Run:
    """Return a run with ids of its own, not begun yet; without ``session_id`` it begins a conversation."""
    return Run(
        id=uuid.uuid4().hex,
        owner=owner,
        session_id=session_id or str(uuid.uuid4()),
        message_id=uuid.uuid4().hex,
        question=question,
        filters=filters,
        idempotency=idempotency,
    )


class Watch(msgspec.Struct):
    """One run's readers; when the last leaves, the run goes on for ``grace_s``."""

    grace_s: float
    readers: int = 0
    timer: asyncio.TimerHandle | None = None


class Capacity(msgspec.Struct, frozen=True):
    """How many runs may be under way at once: of all, and of one owner."""

    runs: int
    of_owner: int | None = None


class Runs:
    """Starts runs and knows each of them, under way or stored; another owner's are as if there were none."""

    def __init__(self, runner: Runner, bus: EventBus, store: PostgresRuns, capacity: Capacity, grace_s: float) -> None:
        self.bus = bus
        self._runner = runner
        self._store = store
        self._capacity = capacity
        self._grace_s = grace_s
        self._watches: dict[str, Watch] = {}
        self._told_lost: set[tuple[str, int]] = set()
        self._replayed: WeakValueDictionary[str, Stored] = WeakValueDictionary()
        """Logs that are being read: one copy serves all readers, those that never read included."""

    @property
    def count(self) -> int:
        """How many runs are under way, or about to be."""
        return self._runner.count

    @property
    def readers(self) -> int:
        """How many readers there are of runs that this server answers or has just answered."""
        return sum(watch.readers for watch in self._watches.values())

    async def start(self, run: Run, *, keep: bool = False, take_over: bool = False) -> None:
        """Set a run going; its first event is on the bus when this returns.

        ``keep``: let it go on for the grace period when its last reader leaves. ``take_over``: stop what is being
        answered in the same session first.

        Raises:
            TooManyRuns, TooManyOfOwner: There are as many as may be; nothing was stored.
            SessionBusy, KeyTaken, NobodyWaits: See :meth:`PostgresRuns.begin`; likewise.
            asyncpg.PostgresError, asyncpg.InterfaceError, sqlalchemy.exc.DBAPIError: The question could not be stored.
        """
        await self._admit(run, take_over=take_over)
        try:
            await self._runner.start(run)
        except SessionBusy as busy:
            if not await self._made_way(run.owner, busy.run_id, take_over=take_over):
                raise
            await self._admit(run, take_over=take_over)
            await self._runner.start(run)
        self._watches[run.id] = Watch(self._grace_s if keep else 0.0)

    async def _admit(self, run: Run, *, take_over: bool) -> None:
        """Refuse a run that would be one too many; one that was accepted before is told apart first."""
        capacity = self._capacity
        replaced = run.session_id if take_over else None
        refused: StagecastError | None = None
        if self._runner.count >= capacity.runs:
            refused = TooManyRuns(capacity.runs)
        elif capacity.of_owner is not None and self._runner.count_of(run.owner, replaced) >= capacity.of_owner:
            refused = TooManyOfOwner(capacity.of_owner)
        if refused:
            raise await self._store.taken(run) or refused

    def join(self, run_id: str) -> None:
        """Note a reader of a run."""
        if watch := self._watches.get(run_id):
            watch.readers += 1
            if watch.timer:
                watch.timer.cancel()

    def leave(self, run_id: str) -> None:
        """Note that a reader left; when it was the last, stop the run, at once or after its grace period."""
        watch = self._watches.get(run_id)
        if watch is None:
            return
        watch.readers -= 1
        if watch.readers:
            return
        if watch.grace_s and self._runner.progress(run_id) is not None:
            watch.timer = asyncio.get_running_loop().call_later(watch.grace_s, self._abandon, run_id)
        else:
            self._abandon(run_id)

    async def stop(self, owner: str, run_id: str) -> Answer | None:
        """Stop a run and return it as it ended; None when its owner has none of this id.

        A run under way is stopped, and told from memory, whatever state the database is in.

        Raises:
            Elsewhere: Another server is answering it.
        """
        run, told = self._live(owner, run_id), self._runner.told(run_id)
        if run is None or told is None:
            return _ended(await self.find(owner, run_id))
        self._runner.stop(run_id)
        return _live_answer(run, await asyncio.shield(told))

    async def source(self, owner: str, run_id: str, after: int = 0) -> Readable | None:
        """Return where a run's events behind number ``after`` can be read; None when its owner has none of this id.

        Raises:
            BeyondTheEnd: It has no event of this number.
            Expired: It has ended, and its events are not kept any more.
            Elsewhere: Another server is answering it.
        """
        source = await self._source(owner, run_id)
        frames = await source.frames(run_id) if source and after else None
        if frames is not None and after > len(frames):
            raise BeyondTheEnd(len(frames))
        return source

    async def _source(self, owner: str, run_id: str) -> Readable | None:
        for _ in range(STARTING_POLLS):
            if self._live(owner, run_id):
                return self.bus
            stored = await self._store.find(owner, run_id)
            if stored is None:
                return None
            if stored.outcome.status != "running":
                return await self._stored_events(stored)
            await asyncio.sleep(STARTING_POLL_S)
        raise Elsewhere(run_id)

    async def concluded(self, owner: str, run_id: str) -> StoredRun:
        """Wait until the run has ended and return it.

        Raises:
            Elsewhere: Another server is answering it, or it was deleted.
        """
        run, told = self._live(owner, run_id), self._runner.told(run_id)
        if run and told:
            return StoredRun(run.id, run.owner, run.session_id, run.message_id, await asyncio.shield(told))
        found = await self._store.find(owner, run_id)
        if found is None or found.outcome.status == "running":
            raise Elsewhere(run_id)
        return found

    async def find(self, owner: str, run_id: str) -> Answer | None:
        """Return a run, None when its owner has none of this id; of one under way what there is of it."""
        run, progress = self._live(owner, run_id), self._runner.progress(run_id)
        if run and progress:
            return _live_answer(run, progress)
        stored = await self._store.find(owner, run_id)
        return None if stored is None else answer_of(stored)

    async def is_stored(self, run_id: str, within_s: float = TAKE_OVER_S) -> bool:
        """Wait until the end of a run under way is stored; False when that takes too long."""
        ended = self._runner.ended(run_id)
        done, _ = await asyncio.wait({ended}, timeout=within_s) if ended else (True, ())
        return bool(done)

    def _live(self, owner: str, run_id: str) -> Run | None:
        run = self._runner.run(run_id)
        return run if run is not None and run.owner == owner else None

    async def _stored_events(self, stored: StoredRun) -> Readable:
        if shared := self._replayed.get(stored.run_id):
            return shared
        frames = await self._store.events(stored.run_id)
        if frames is not None:
            return self._replayed.setdefault(stored.run_id, Stored(frames))
        if stored.outcome.error and not stored.outcome.elapsed_ms:  # closed by another than who answered it
            return Lost(stored.outcome.error, self._told_lost)
        raise Expired(stored.run_id)

    async def _made_way(self, owner: str, run_id: str, *, take_over: bool) -> bool:
        """Say whether the run that was in the way has ended; wait a little for one that is being left just now."""
        if self._runner.progress(run_id) is None:
            stored = await self._store.find(owner, run_id)
            return stored is None or stored.outcome.status != "running"
        if take_over:
            self._runner.stop(run_id)
        return await self.is_stored(run_id, within_s=TAKE_OVER_S if self._runner.stopping(run_id) else LEAVING_S)

    def _abandon(self, run_id: str) -> None:
        self._watches.pop(run_id, None)
        self._runner.stop(run_id)


def _ended(answer: Answer | None) -> Answer | None:
    if answer is not None and answer.status == "running":
        raise Elsewhere(answer.run_id)
    return answer


def _live_answer(run: Run, outcome: Outcome) -> Answer:
    return answer_of(StoredRun(run.id, run.owner, run.session_id, run.message_id, outcome))


def answer_of(stored: StoredRun) -> Answer:
    """Return a run as it is shown."""
    outcome = stored.outcome
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
