"""What is known of a run while it is under way: its answer so far, its times, and the limits on its patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from pipeline import queueing
from pipeline.events import Event, GenerationComplete, GenerationStart, StageTime, type_of
from pipeline.ports import Run
from pipeline.recording import Left

E = TypeVar("E", bound=Event)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a run may take, in seconds."""

    idle_s: float = 30.0
    """Without any event."""
    stage_idle_s: Mapping[str, float] = {}
    """The same within the stages named here, where it is shorter."""
    first_token_s: float | None = None
    """From the question to the LLM to its first token; None: only the idle limit holds."""
    total_s: float = 300.0


class Stop(StrEnum):
    """Why a run is ended from outside its stages."""

    CLIENT = "client"
    IDLE = "idle"
    FIRST_TOKEN = "first_token"  # noqa: S105  # no secret
    TOTAL = "total"
    SHUTDOWN = "shutdown"


def since_ms(start: float, end: float) -> float:
    """Return the time between two readings of the monotonic clock in ms, as it stands in every event and log line."""
    return round((end - start) * 1000, 2)


class LiveRun:
    """A run under way. Times are taken from the monotonic clock, once, and used everywhere; a loop's may be coarser."""

    def __init__(self, run: Run, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.run = run
        self.loop = loop
        self.begun = self.last_event = self.stage_begun = time.monotonic()
        self.stage = "run"
        self.timings: dict[str, StageTime] = {}
        self.pieces: list[str] = []
        self.first_token: float | None = None
        self.stages_begun: dict[str, float] = {}
        self.model: str | None = None
        """Of the LLM that is asked."""
        self.queued_ms: dict[str, float] = {}
        """How long each stage stood in line, of those that tell."""
        self.left: list[Left] = []
        """What the stages that are done have left for the next."""
        self.finish_reason: str | None = None
        self.stop: asyncio.Future[Stop] = loop.create_future()
        self.told: asyncio.Future[Any] = loop.create_future()
        """The outcome, once readers have been sent the last event."""
        self.ended: asyncio.Future[Any] = loop.create_future()
        """The outcome, once it is stored or has been given up."""
        self.closed = False
        self.shown = False
        """Whether its end was logged, and shown to those who look at runs."""
        self.events, self.sent_bytes = 0, 0
        self._queue = queueing.QueueTime()
        self._longest_gap = 0.0
        self._asked: float | None = None
        self._limits = limits
        self._seen: list[str] = []
        self.silent = True
        self._timer = loop.call_later(self._due()[0] - self.begun, self._check)

    @property
    def answer(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def elapsed_ms(self) -> float:
        """Time since the question was accepted."""
        return since_ms(self.begun, time.monotonic())

    @property
    def first_token_ms(self) -> float | None:
        """Time from the question to the first token; None before it."""
        return None if self.first_token is None else since_ms(self.begun, self.first_token)

    @property
    def token_gap_ms(self) -> float | None:
        """The longest time between two tokens that came one after the other; None when there were no two."""
        return since_ms(0, self._longest_gap) if self._longest_gap else None

    def request_stop(self, why: Stop) -> None:
        """Ask for an early end; the first reason given stands."""
        if not self.stop.done():
            self.stop.set_result(why)

    def check_stopped(self) -> None:
        """Raise the cancellation that a stage has swallowed: nothing goes on behind a stop."""
        if self.closed or self.stop.done():
            raise asyncio.CancelledError

    def begin_stage(self, name: str) -> None:
        """Take the time at which a stage begins; to be called in the task that runs it."""
        self._asked = None
        self.stage, self.stage_begun, self._seen, self.silent = name, time.monotonic(), [], True
        self.stages_begun[name] = self.stage_begun
        self._queue = queueing.begin()
        self._check()

    def stamp(self, event: E) -> E:
        """Return a stage's event with the times and counts that only the runner knows."""
        kind = type_of(event)
        self._seen.append(kind)
        if isinstance(event, GenerationStart):
            self._asked, self.model = time.monotonic(), event.content.model
            self._check()
        if kind != f"{self.stage}_complete":
            return event
        elapsed_ms = since_ms(self.stage_begun, time.monotonic())
        self.timings[self.stage] = StageTime(elapsed_ms)
        measured: dict[str, object] = {"elapsed_ms": elapsed_ms}
        if hasattr(event.content, "queued_ms"):  # type: ignore[attr-defined]  # every event has a content
            measured["queued_ms"] = self.queued_ms[self.stage] = min(round(self._queue.waited_ms, 2), elapsed_ms)
        if isinstance(event, GenerationComplete):
            self.finish_reason = event.content.finish_reason
            first_ms = None if self.first_token is None else since_ms(self.stage_begun, self.first_token)
            measured |= {"token_count": len(self.pieces), "first_token_ms": first_ms}
        return msgspec.structs.replace(event, content=msgspec.structs.replace(event.content, **measured))  # type: ignore[attr-defined]  # every event has a content

    def missing(self) -> str | None:
        """Return the event type that a stage which has yielded anything owes but did not yield, if any."""
        owed = (f"{self.stage}_start", f"{self.stage}_complete")
        return next((kind for kind in owed if kind not in self._seen), None)

    def touch(self, sent_bytes: int, tokens: list[str] | None) -> None:
        """Note that an event was sent, or pieces of the answer: the idle limit begins anew."""
        self.silent = False
        before, self.last_event = self.last_event, time.monotonic()
        self.sent_bytes += sent_bytes
        if tokens is None:
            self.events += 1
            return
        if self.first_token is None:
            self.first_token = self.last_event
        elif self.last_event - before > self._longest_gap:
            self._longest_gap = self.last_event - before
        self._asked = None
        self.events += len(tokens)
        self.pieces += tokens

    def close(self) -> None:
        """Take no more events and watch no more limits."""
        self.closed = True
        self._timer.cancel()

    def _due(self) -> tuple[float, Stop]:
        limits = self._limits
        due = [(self.last_event + limits.idle_s, Stop.IDLE), (self.begun + limits.total_s, Stop.TOTAL)]
        if own_s := limits.stage_idle_s.get(self.stage):
            due.append((max(self.last_event, self.stage_begun) + own_s, Stop.IDLE))
        if self._asked is not None and limits.first_token_s is not None:
            due.append((self._asked + limits.first_token_s, Stop.FIRST_TOKEN))
        return min(due)

    def _check(self) -> None:
        """One timer for all limits, pushed forward when it fires: nothing is armed per token."""
        self._timer.cancel()
        due, why = self._due()
        left_s = due - time.monotonic()
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._check)
        else:
            self.request_stop(why)
