"""The runner: one supervised task per run takes its stages in order and ends it with exactly one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol

import msgspec
import structlog

from pipeline.ending import UNFINISHED, UNSTORED, Outcome, Status, failure_of, last_event, log_run, outcome_of
from pipeline.errors import ContractBroken, UnknownRun
from pipeline.events import (
    TERMINAL,
    Error,
    Event,
    RunStart,
    RunStarted,
    Token,
    type_of,
)
from pipeline.live import Limits, LiveRun, Stop
from pipeline.ports import EventBus, Run, Stage

log = structlog.get_logger()

STORE_DEADLINE_S = 20.0
"""For all attempts together; a database that has stopped answering must not keep a reader waiting for longer."""
STOP_GRACE_S = 1.0
"""How long a stage may take to notice its cancellation before the run goes on without it."""
STORE_ATTEMPTS_S = (0.0, 0.1, 0.3, 1.0, 2.0, 4.0)
"""Waits before each attempt to store a finished run."""


class RunStore(Protocol):
    """Where runs and the conversation are kept."""

    async def begin(self, run: Run) -> None:
        """Store the user's message and the run as ``running``, and give the run its history."""
        ...

    async def finish(self, run: Run, outcome: Outcome, frames: list[bytes]) -> None:
        """Store the answer, or what there is of it, how the run ended, and its events; called again after an error."""
        ...


class Runner:
    """Runs questions through the stages; whatever happens inside a run, it ends with one terminal event."""

    def __init__(self, stages: Sequence[tuple[str, Stage]], bus: EventBus, store: RunStore, limits: Limits) -> None:
        self._stages = stages
        self._bus = bus
        self._store = store
        self._limits = limits
        self._live: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._stopping: Stop | None = None

    async def start(self, run: Run) -> None:
        """Store the question and set the run going; return once its first event is published.

        Raises:
            Exception: Whatever the store raises; there is no run then.
        """
        self._starting += 1
        try:
            await self._store.begin(run)
        finally:
            self._starting -= 1
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
        return len(self._live) + self._starting

    def stop(self, run_id: str, why: Stop = Stop.CLIENT) -> bool:
        """Stop a run in whatever stage it is; False when it is not under way."""
        live = self._live.get(run_id)
        if live is None:
            return False
        live.request_stop(why)
        return True

    @property
    def ids(self) -> list[str]:
        """The runs under way."""
        return list(self._live)

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
        return None if live is None else live.concluded or outcome_of(live, "running")

    def ended(self, run_id: str) -> asyncio.Future[Outcome] | None:
        """Return what will tell the outcome of a run under way, once it is stored or has been tried to be."""
        live = self._live.get(run_id)
        return None if live is None else live.ended

    async def close(self) -> None:
        """Stop every run and wait until each is stored."""
        self.stop_all(Stop.SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_GRACE_S + sum(STORE_ATTEMPTS_S))

    async def _supervise(self, live: LiveRun) -> None:
        work = asyncio.create_task(self._work(live), name=f"stages-{live.run.id}")
        ends: set[asyncio.Future[Any]] = {work, live.stop}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work}, timeout=STOP_GRACE_S)
        live.close()
        if not work.done():
            log.error("stage.ignores_cancellation", run_id=live.run.id, stage=live.stage)
        await self._end(live, work.result() if work.done() else asyncio.CancelledError())

    async def _work(self, live: LiveRun) -> BaseException | None:
        """Run the stages; return the exception that ended them early, None when all ended well."""
        try:
            for name, stage in self._stages:
                live.check_stopped()
                await self._run_stage(live, name, stage)
        except BaseException as broken:  # noqa: BLE001  # a plugin's SystemExit must not end the server
            return broken
        return None

    async def _run_stage(self, live: LiveRun, name: str, stage: Stage) -> None:
        live.begin_stage(name)
        async with aclosing(stage.run(live.run)) as events:
            async for event in events:
                self._send(live, event)
        if live.silent:  # it had nothing to do, or it has swallowed a stop
            live.check_stopped()
            return
        if missing := live.missing():
            raise ContractBroken(f"stage {name!r} ended without its {missing} event")
        log.info("stage.complete", run_id=live.run.id, stage=name, elapsed_ms=live.timings[name].elapsed_ms)

    def _send(self, live: LiveRun, event: Event) -> None:
        live.check_stopped()
        if type(event) is Token:
            if not isinstance(event.content, str) or "\0" in event.content:
                raise ContractBroken(f"stage {live.stage!r} yielded a token that is no text")
        elif not isinstance(event, Event) or isinstance(event, (*TERMINAL, RunStart)):
            raise ContractBroken(f"stage {live.stage!r} yielded {type(event).__name__}, which is not a stage's event")
        else:
            event = live.stamp(event)
            log.debug("event", run_id=live.run.id, type=type_of(event))
        self._bus.publish(live.run.id, event)
        if type(event) is Token:
            live.take_token(event)
        live.touch()

    async def _end(self, live: LiveRun, broken: BaseException | None) -> None:
        """Conclude the run; if even that fails, its readers are told all the same."""
        try:
            outcome = await self._concluded(live, broken)
        except BaseException:  # a run must never stay open
            log.exception("run.unfinished", run_id=live.run.id)
            outcome = outcome_of(live, "error", UNFINISHED)
            with suppress(UnknownRun):
                self._bus.close(live.run.id, self._bus.last_frame(live.run.id, Error(UNFINISHED)))
        del self._live[live.run.id]
        live.ended.set_result(outcome)

    async def _concluded(self, live: LiveRun, broken: BaseException | None) -> Outcome:
        failure = failure_of(live, broken)
        status: Status = "error" if failure else "cancelled" if broken else "completed"
        outcome = outcome_of(live, status, failure)
        last = self._bus.last_frame(live.run.id, last_event(live, outcome))
        frames = [*await self._bus.frames(live.run.id), last]
        if status != "completed":  # only an answer that is whole has to be stored before it is called so
            log_run(live, outcome, broken)
            live.concluded = outcome
            self._bus.close(live.run.id, last)
            await self._stored(live.run, outcome, frames)
            return outcome
        if not await self._stored(live.run, outcome, frames):
            outcome = msgspec.structs.replace(outcome, status="error", error=UNSTORED)
            last = self._bus.last_frame(live.run.id, Error(UNSTORED))
        log_run(live, outcome, broken)
        self._bus.close(live.run.id, last)
        return outcome

    async def _stored(self, run: Run, outcome: Outcome, frames: list[bytes]) -> bool:
        storing = asyncio.create_task(self._store_patiently(run, outcome, frames), name=f"store-{run.id}")
        done, _ = await asyncio.wait({storing}, timeout=STORE_DEADLINE_S)
        storing.cancel()
        return bool(done) and storing.result()

    async def _store_patiently(self, run: Run, outcome: Outcome, frames: list[bytes]) -> bool:
        for wait_s in STORE_ATTEMPTS_S:
            await asyncio.sleep(wait_s)
            try:
                await self._store.finish(run, outcome, frames)
            except Exception as problem:  # noqa: BLE001  # whatever the store's trouble is, the run must end
                log.warning("run.store_failed", run_id=run.id, error=type(problem).__name__)
            else:
                return True
        return False
