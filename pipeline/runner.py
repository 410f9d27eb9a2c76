"""The runner: one supervised task per run takes its stages in order and ends it with exactly one terminal event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from itertools import chain, repeat
from typing import Any, Protocol

import structlog

from pipeline.ending import UNFINISHED, UNSTORED, Outcome, failure_of, last_event, log_run, outcome_of
from pipeline.errors import ContractBroken, RunGone, UnknownRun
from pipeline.events import TERMINAL, Error, Event, RunStart, RunStarted, Token, Tokens, type_of
from pipeline.live import Limits, LiveRun, Stop
from pipeline.ports import EventBus, Run, Stage
from pipeline.recording import Left

log = structlog.get_logger()

STOP_GRACE_S = 0.05
"""How long a run that is stopped waits for its stage; closing a socket takes 5 ms, some work cannot be stopped."""
STORE_DEADLINE_S = 20.0
"""How long a reader waits for a whole answer to be stored before it is told that it could not be."""
STORE_GRACE_S = 0.1
"""How long storing a whole answer may still take when the run is stopped meanwhile; usually it takes 10 ms."""
STORE_PATIENCE_S = 600.0
"""How long the end of a run that is told already is kept for a database that is down; one question waits less."""
STORE_WAITS_S = (0.0, 0.1, 0.3, 1.0, 2.0)
"""Waits before each attempt to store; the last is repeated."""
GOODBYE_S = 5.0
"""How long the process's end waits for runs to be stored."""
FAIR_EVENTS = 64
"""After so many events a stage that never waits gives the loop back."""
MAX_RUN_BYTES = 16 * 1024 * 1024
"""Of a run's events together: some 150,000 tokens. A run's log is kept in memory until it ends."""


class RunStore(Protocol):
    """Where runs and the conversation are kept."""

    async def begin(self, run: Run) -> None:
        """Store the user's message and the run as ``running``, and give the run its history.

        Raises:
            NobodyWaits: The run was not wanted any more when its turn came.
        """
        ...

    async def finish(self, run: Run, outcome: Outcome, frames: list[bytes]) -> None:
        """Store the answer, or what there is of it, how the run ended, and its events; called again after an error.

        Raises:
            RunGone: The run was deleted.
        """
        ...


class Observer(Protocol):
    """Is shown each run, and changes nothing about it."""

    def begun(self, live: LiveRun) -> None:
        """Note that a run begins; called in the task of its stages, before them."""
        ...

    def concluded(self, live: LiveRun, outcome: Outcome) -> None:
        """Note how a run has ended; called before its readers are told."""
        ...


class Runner:
    """Runs questions through the stages; whatever happens inside a run, it ends with one terminal event."""

    def __init__(
        self,
        stages: Sequence[tuple[str, Stage]],
        bus: EventBus,
        store: RunStore,
        limits: Limits,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._stages = stages
        self._bus = bus
        self._store = store
        self._limits = limits
        self._observers = (*observers,)
        self._live: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._left_behind: set[asyncio.Task[Any]] = set()
        """Stages of runs that have ended without them."""
        self._starting: dict[str, str] = {}
        """Runs whose question is being stored, and their owners."""
        self._stopping: Stop | None = None

    async def start(self, run: Run) -> None:
        """Store the question and set the run going; return once its first event is published.

        Raises:
            Exception: Whatever the store raises; there is no run then.
        """
        self._starting[run.id] = run.owner
        try:
            await self._store.begin(run)
        finally:
            del self._starting[run.id]
        live = self._live[run.id] = LiveRun(run, self._limits, asyncio.get_running_loop())
        self._bus.open(run.id)
        self._bus.publish(run.id, RunStart(RunStarted(run_id=run.id, session_id=run.session_id)))
        task = asyncio.create_task(self._supervise(live), name=f"run-{run.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._stopping:
            live.request_stop(self._stopping)

    @property
    def count(self) -> int:
        """How many runs are under way, or about to be."""
        return len(self._live) + len(self._starting)

    def stop(self, run_id: str, why: Stop = Stop.CLIENT) -> bool:
        """Stop a run in whatever stage it is; False when it is not under way."""
        live = self._live.get(run_id)
        if live is None:
            return False
        live.request_stop(why)
        return True

    def count_of(self, owner: str, but_session: str | None = None) -> int:
        """How many runs of one owner are under way, or about to be; without those being stopped, and of one session."""
        answering = (live.run for live in self._live.values() if not live.stop.done() and not live.told.done())
        under_way = sum(run.owner == owner and run.session_id != but_session for run in answering)
        return under_way + list(self._starting.values()).count(owner)

    @property
    def ids(self) -> list[str]:
        """The runs under way, or about to be."""
        return [*self._live, *self._starting]

    def stopping(self, run_id: str) -> bool:
        """Say whether a run under way has been asked to stop."""
        live = self._live.get(run_id)
        return live is not None and live.stop.done()

    def stop_all(self, why: Stop) -> None:
        """Stop every run under way, and those that are about to begin."""
        self._stopping = why
        for live in self._live.values():
            live.request_stop(why)

    def progress(self, run_id: str) -> Outcome | None:
        """Return what there is of a run under way, None when it is not."""
        live = self._live.get(run_id)
        if live is None:
            return None
        return live.told.result() if live.told.done() else outcome_of(live, "running")

    def run(self, run_id: str) -> Run | None:
        """Return a run under way, or one whose end is not stored yet."""
        live = self._live.get(run_id)
        return None if live is None else live.run

    def told(self, run_id: str) -> asyncio.Future[Outcome] | None:
        """Return what will tell the outcome of a run under way, once its readers are told."""
        live = self._live.get(run_id)
        return None if live is None else live.told

    def ended(self, run_id: str) -> asyncio.Future[Outcome] | None:
        """Return what will tell the outcome of a run under way, once it is stored or has been given up."""
        live = self._live.get(run_id)
        return None if live is None else live.ended

    async def close(self) -> None:
        """Stop every run and wait until each is stored, but not for long."""
        self.stop_all(Stop.SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GOODBYE_S)

    async def _supervise(self, live: LiveRun) -> None:
        work = asyncio.create_task(self._work(live), name=f"stages-{live.run.id}")
        ends: set[asyncio.Future[Any]] = {work, live.stop}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=STOP_GRACE_S)
        live.close()
        if not work.done():
            self._left_behind.add(work)
            work.add_done_callback(self._left_behind.discard)
            log.warning("stage.slow_to_stop", run_id=live.run.id, stage=live.stage)
        await self._end(live, work.result() if work.done() else asyncio.CancelledError())

    async def _work(self, live: LiveRun) -> BaseException | None:
        """Run the stages; return the exception that ended them early, None when all ended well."""
        try:
            for observer in self._observers:
                _unfailing(observer.begun, live)
            for name, stage in self._stages:
                live.check_stopped()
                await self._run_stage(live, name, stage)
        except BaseException as broken:  # noqa: BLE001  # a plugin's SystemExit must not end the server
            return broken
        return None

    async def _run_stage(self, live: LiveRun, name: str, stage: Stage) -> None:
        live.begin_stage(name)
        async with aclosing(stage.run(live.run)) as events:
            fair = live.events + FAIR_EVENTS
            async for event in events:
                self._send(live, event)
                if live.events >= fair:
                    fair = live.events + FAIR_EVENTS
                    await asyncio.sleep(0)
        if live.silent:  # it had nothing to do, or it has swallowed a stop
            live.check_stopped()
            return
        if missing := live.missing():
            raise ContractBroken(f"stage {name!r} ended without its {missing} event")
        live.left.append(Left(name, live.run.query, [*live.run.passages]))
        log.info("stage.complete", run_id=live.run.id, stage=name, elapsed_ms=live.timings[name].elapsed_ms)

    def _send(self, live: LiveRun, event: Event) -> None:
        live.check_stopped()
        if type(event) is Token:
            event = Tokens([event.content])
        tokens = event.content if type(event) is Tokens else None
        if tokens is None:
            event = _stamped(live, event)
        try:
            sent_bytes = self._bus.publish(live.run.id, event)
        except ValueError as refused:
            raise ContractBroken(f"stage {live.stage!r} yielded {refused}") from refused
        live.touch(sent_bytes, tokens)
        if live.sent_bytes > MAX_RUN_BYTES:
            raise ContractBroken(f"stage {live.stage!r} went on after {MAX_RUN_BYTES:,} bytes of events")

    async def _end(self, live: LiveRun, broken: BaseException | None) -> None:
        """Conclude the run; if even that fails, its readers are told all the same."""
        try:
            outcome = await self._concluded(live, broken)
        except BaseException:  # a run must never stay open
            log.exception("run.unfinished", run_id=live.run.id)
            outcome = outcome_of(live, "error", UNFINISHED)
            if not live.shown:
                self._show(live, outcome, None)
            with suppress(UnknownRun):
                self._tell(live, outcome, self._bus.last_frame(live.run.id, Error(UNFINISHED)))
        del self._live[live.run.id]
        self._bus.forget(live.run.id)
        for outcome_known in (live.told, live.ended):
            if not outcome_known.done():
                outcome_known.set_result(outcome)

    async def _concluded(self, live: LiveRun, broken: BaseException | None) -> Outcome:
        """Tell readers how the run ended and store it; only an answer that is whole is stored before it is told."""
        if broken is None:
            whole = outcome_of(live, "completed")
            last = self._bus.last_frame(live.run.id, last_event(live, whole))
            if await self._stored_in_time(live, whole, last):
                self._show(live, whole, None)
                self._tell(live, whole, last)
                return whole
            failure = failure_of(live, asyncio.CancelledError()) if live.stop.done() else UNSTORED
        else:
            failure = failure_of(live, broken)
        outcome = outcome_of(live, "error" if failure else "cancelled", failure)
        last = self._bus.last_frame(live.run.id, last_event(live, outcome))
        self._show(live, outcome, broken)
        self._tell(live, outcome, last)
        await self._store_patiently(live, outcome, last, STORE_PATIENCE_S)
        return outcome

    def _show(self, live: LiveRun, outcome: Outcome, broken: BaseException | None) -> None:
        live.shown = True
        log_run(live, outcome, broken)
        for observer in self._observers:
            _unfailing(observer.concluded, live, outcome)

    def _tell(self, live: LiveRun, outcome: Outcome, last: bytes) -> None:
        self._bus.close(live.run.id, last)
        if not live.told.done():
            live.told.set_result(outcome)

    async def _stored_in_time(self, live: LiveRun, outcome: Outcome, last: bytes) -> bool:
        """Store a whole answer; give up at the deadline, or when the run is stopped and storing does not go well."""
        patiently = self._store_patiently(live, outcome, last, STORE_DEADLINE_S)
        storing = asyncio.create_task(patiently, name=f"store-{live.run.id}")
        ends: set[asyncio.Future[Any]] = {storing, live.stop}
        await asyncio.wait(ends, timeout=STORE_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if not storing.done() and live.stop.done():
            await asyncio.wait({storing}, timeout=STORE_GRACE_S)
        storing.cancel()
        return storing.done() and storing.result()

    async def _store_patiently(self, live: LiveRun, outcome: Outcome, last: bytes, patience_s: float) -> bool:
        """Store the run, again and again if need be; what is told already can wait for a database that is down."""
        frames = await self._bus.frames(live.run.id)
        frames = frames if frames[-1] == last else [*frames, last]
        give_up = time.monotonic() + patience_s
        for wait_s in chain(STORE_WAITS_S, repeat(STORE_WAITS_S[-1])):
            await asyncio.sleep(wait_s)
            try:
                await self._store.finish(live.run, outcome, frames)
            except RunGone:
                return False
            except Exception as problem:  # whatever the store's trouble is, the run must end
                log.warning("run.store_failed", run_id=live.run.id, error=type(problem).__name__)
                if time.monotonic() > give_up:
                    log.exception("run.unstored", run_id=live.run.id, patience_s=patience_s)
                    return False
            else:
                return True
        raise AssertionError("the waits have no end")


def _unfailing(observe: Callable[..., None], live: LiveRun, *outcome: Outcome) -> None:
    try:
        observe(live, *outcome)
    except Exception:  # who looks at a run must not change it
        log.exception("run.unobserved", run_id=live.run.id)


def _stamped(live: LiveRun, event: Event) -> Event:
    if not isinstance(event, Event) or isinstance(event, (*TERMINAL, RunStart)):
        raise ContractBroken(f"stage {live.stage!r} yielded {type(event).__name__}, which is not a stage's event")
    log.debug("event", run_id=live.run.id, type=type_of(event))
    return live.stamp(event)
