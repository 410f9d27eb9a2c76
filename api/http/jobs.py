"""``/jobs/{job_id}``: an upload looked at, and watched."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from api.http.callers import Caller
from api.http.problems import bad_field, refuse
from api.http.runs import After, LastEventId, last_seen
from api.http.sse import EventStream, Reader
from api.ingest.jobs import Job, Jobs
from api.settings import Settings
from pipeline.text import clean


@get("/jobs/{job_id:str}")
async def read_job(job_id: str, jobs: NamedDependency[Jobs], caller: NamedDependency[Caller]) -> Job:
    """Return an upload's job: how far it is, and which files failed."""
    return _found(job_id, jobs, caller)


@get("/jobs/{job_id:str}/events", media_type="text/event-stream")
async def read_job_events(
    *,
    job_id: str,
    jobs: NamedDependency[Jobs],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
    last_event_id: LastEventId = None,
    after: After = 0,
) -> Response[Any]:
    """Stream a job's events from the start, or behind the one that was seen last; as those of a run."""
    job = _found(job_id, jobs, caller)
    seen = last_seen(last_event_id, after)
    count = len(await jobs.bus.frames(job.job_id))
    if seen > count:
        raise bad_field("Last-Event-ID", f"{seen} is beyond the end; the job has {count} events so far")
    if job.ended and seen == count:
        return Response(None, status_code=204)
    return EventStream(
        Reader(jobs.bus, job.job_id, after=seen, heartbeat_s=settings.heartbeat_s, permitted=caller.still_permitted)
    )


def _found(job_id: str, jobs: Jobs, caller: Caller) -> Job:
    found = jobs.find(caller.owner, clean(job_id))
    if found is None:
        raise refuse(404, f"There is no job {job_id!r}.")
    return found
