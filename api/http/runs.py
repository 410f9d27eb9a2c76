"""``/runs/{run_id}``: a run looked at, watched again, stopped."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import Parameter

from api.http.callers import Caller
from api.http.problems import bad_field, refuse
from api.http.sse import EventStream, Reader
from api.replay import BeyondTheEnd, Expired
from api.runs import Answer, Runs
from api.settings import Settings
from pipeline.text import clean

LastEventId = Annotated[str | None, Parameter(header="Last-Event-ID", description="The last event that was seen.")]
After = Annotated[int, Parameter(ge=0, le=2**62, description="The same, for clients that cannot send the header.")]


@get("/runs/{run_id:str}")
async def read_run(run_id: str, runs: NamedDependency[Runs], caller: NamedDependency[Caller]) -> Answer:
    """Return a run: its status, the answer so far, its sources and times."""
    found = await runs.find(caller.owner, clean(run_id))
    if found is None:
        raise _unknown(run_id)
    return found


@post("/runs/{run_id:str}/cancel", status_code=200)
async def cancel_run(run_id: str, runs: NamedDependency[Runs], caller: NamedDependency[Caller]) -> Answer:
    """Stop a run in whatever stage it is and return it as it ended; a second time changes nothing."""
    stopped = await runs.stop(caller.owner, clean(run_id))
    if stopped is None:
        raise _unknown(run_id)
    return stopped


@get("/runs/{run_id:str}/events", media_type="text/event-stream")
async def read_events(
    *,
    run_id: str,
    runs: NamedDependency[Runs],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
    last_event_id: LastEventId = None,
    after: After = 0,
) -> Response[Any]:
    """Stream a run's events from the start, or behind the one that was seen last; of a finished run too.

    The header counts more than ``after``: browsers send it when they come back to the address they were given.
    """
    seen = last_seen(last_event_id, after)
    return await stream_of(runs, caller, run_id, after=seen, heartbeat_s=settings.heartbeat_s)


async def stream_of(runs: Runs, caller: Caller, run_id: str, *, after: int, heartbeat_s: float) -> Response[Any]:
    """Return a stream of the run's events behind number ``after``; 204 when there are none and will be none."""
    run_id = clean(run_id)
    try:
        source = await runs.source(caller.owner, run_id, after)
    except BeyondTheEnd as beyond:
        raise bad_field("Last-Event-ID", f"{after} is beyond the end; {beyond}") from None
    except Expired:
        raise refuse(410, f"The events of run {run_id!r} are not kept any more.") from None
    if source is None:
        raise _unknown(run_id)
    if source is not runs.bus and not [batch async for batch in source.read(run_id, after)]:
        return Response(None, status_code=204)
    notices = {"joined": runs.join, "left": runs.leave}
    permitted = caller.still_permitted
    return EventStream(Reader(source, run_id, after=after, heartbeat_s=heartbeat_s, permitted=permitted, **notices))


def last_seen(last_event_id: str | None, after: int) -> int:
    """Return the number of the last event that a reader has seen."""
    if last_event_id is None:
        return after
    if not last_event_id.isdecimal() or not last_event_id.isascii():
        raise bad_field("Last-Event-ID", "the number of an event is expected")
    return min(int(last_event_id[:19]), 2**62)


def _unknown(run_id: str) -> Exception:
    return refuse(404, f"There is no run {run_id!r}.")
