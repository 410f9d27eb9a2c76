"""``GET /health/probe``: events at known moments, by which ``stagecast doctor --url`` finds out what a proxy does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from api.http.callers import Caller
from api.http.runs import LastEventId, last_seen
from api.http.sse import EventStream, Reader
from api.settings import Settings
from pipeline.events import Event
from pipeline.wire import WallClock, frame

EVENTS = 20
PAUSE_S = 0.05
"""Between two events."""
BEHIND_S = 2.0
"""How much longer the silence before the last event is than the time between heartbeats, of which one is sent in it."""


class Probed(msgspec.Struct, frozen=True):
    """How many events there are, and how long the silence before the last is, in seconds."""

    events: int
    silence_s: float
    stage: str = "probe"
    status: str = "sent"


class Probe(Event, frozen=True, tag="probe"):
    """One of the events; its timestamp says when it was sent."""

    content: Probed


class Probing:
    """Sends ``EVENTS`` events at a steady pace, is silent but for heartbeats, and sends a last one."""

    def __init__(self, silence_s: float) -> None:
        self._event = Probe(Probed(EVENTS + 1, silence_s))

    async def read(self, _run_id: str, after: int = 0) -> AsyncGenerator[list[bytes]]:
        """Yield the events behind number ``after``, one at a time."""
        clock = WallClock()
        for number in range(after + 1, EVENTS + 2):
            await asyncio.sleep(PAUSE_S if number <= EVENTS else self._event.content.silence_s)
            yield [frame(number, self._event, clock.now())]


@get("/health/probe", media_type="text/event-stream", include_in_schema=False)
async def probe(
    caller: NamedDependency[Caller], settings: NamedDependency[Settings], last_event_id: LastEventId = None
) -> Response[Any]:
    """Stream the probe's events, behind the one that was seen last."""
    heartbeat_s = settings.heartbeat_s
    return EventStream(
        Reader(
            Probing(heartbeat_s + BEHIND_S),
            "probe",
            after=last_seen(last_event_id, 0),
            heartbeat_s=heartbeat_s,
            permitted=caller.still_permitted,
        )
    )
