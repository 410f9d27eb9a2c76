"""Uploads at work: brought in one behind the other, watched through the event bus like runs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

import msgspec
import structlog

from api.ingest.ingest import Result, ingest_items
from api.ingest.spool import Spool
from api.storage.patience import is_passing
from api.system import System
from pipeline.ending import MAX_MESSAGE_CHARS
from pipeline.errors import Code, RunError, StagecastError
from pipeline.events import (
    Error,
    Event,
    FailedDocument,
    Failure,
    IngestionComplete,
    IngestionCompleted,
    IngestionProgress,
    IngestionProgressed,
    IngestionStart,
    IngestionStarted,
)
from pipeline.live import since_ms
from pipeline.text import clean

log = structlog.get_logger()

STAGE = "ingestion"
MAX_UNFINISHED = 20
MAX_KEPT = 1000
KEPT_S = 3600.0
"""After its end; the events may be read as long."""
MAX_FAILURES = 100
STEPS, BATCH = 20, 16
"""In how many batches a job is done, so that its progress is felt, and how many documents one has at most: the server's
loop writes it in one go, and tokens wait for that."""
PROGRESS_S = 0.05
"""Between two events of progress: a million bad lines are passed over in seconds, and the bus keeps every event."""

DATABASE_GONE = Failure("The database cannot be reached at the moment.", Code.INGESTION_ERROR, STAGE, retryable=True)
STOPPING = Failure("The server is restarting.", Code.SERVER_RESTART, STAGE, retryable=True)
UNEXPECTED = Failure("Something went wrong in the server.", Code.INTERNAL_ERROR, STAGE, retryable=True)


class TooManyJobs(StagecastError):
    """As many uploads wait as may."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_UNFINISHED} uploads are at work or wait already, which is as many as this server takes")


class Job(msgspec.Struct, kw_only=True):
    """An upload on its way into the collection; ``total`` counts files only until it is ``running``."""

    job_id: str
    status: Literal["queued", "running", "completed", "error"]
    total: int
    """Documents that are expected: one a file, one a line of JSON lines."""
    done: int
    stored: int
    unchanged: int
    failed: int
    failures: list[FailedDocument]
    """The first 100."""
    created_at: datetime
    elapsed_ms: float
    """From the upload to now, or to the job's end."""
    error: Failure | None

    @property
    def ended(self) -> bool:
        """Whether nothing of it will change."""
        return self.status in {"completed", "error"}

    def take(self, results: Sequence[Result]) -> None:
        """Count what became of a batch."""
        bad = [result for result in results if result.status == "failed"]
        self.stored += sum(result.status == "stored" for result in results)
        self.unchanged += sum(result.status == "unchanged" for result in results)
        self.failed += len(bad)
        told = bad[: MAX_FAILURES - len(self.failures)]
        self.failures += [FailedDocument(result.path, result.reason[:MAX_MESSAGE_CHARS]) for result in told]
        self.done += len(results)
        self.total = max(self.total, self.done)


class _Live:
    """A job with what only this process knows of it."""

    def __init__(self, owner: str, spool: Spool) -> None:
        self.job = _queued(len(spool.files))
        self.owner = owner
        self.spool = spool
        self.task: asyncio.Task[None] | None = None
        self._begun = time.monotonic()
        self._told_at = 0.0
        self._told_done = self._told_failures = 0

    @property
    def elapsed_ms(self) -> float:
        return since_ms(self._begun, time.monotonic())

    def snapshot(self) -> Job:
        elapsed_ms = self.job.elapsed_ms if self.job.ended else self.elapsed_ms
        return msgspec.structs.replace(self.job, elapsed_ms=elapsed_ms, failures=list(self.job.failures))

    def progress(self, *, at_once: bool) -> Event | None:
        """Return what is to be told now; None when nothing is new, or something was told just now."""
        job, now = self.job, time.monotonic()
        if job.done == self._told_done or not (at_once or now - self._told_at >= PROGRESS_S):
            return None
        new = job.failures[self._told_failures :]
        self._told_at, self._told_done, self._told_failures = now, job.done, len(job.failures)
        return IngestionProgress(
            IngestionProgressed(
                total=job.total,
                done=job.done,
                stored=job.stored,
                unchanged=job.unchanged,
                failed=job.failed,
                failures=new,
            )
        )

    def completed(self) -> Event:
        job = self.job
        return IngestionComplete(
            IngestionCompleted(
                total=job.total,
                stored=job.stored,
                unchanged=job.unchanged,
                failed=job.failed,
                elapsed_ms=self.elapsed_ms,
            )
        )


class Jobs:
    """Takes uploads, one at work at a time, and knows each for an hour after its end.

    Another owner's are as if there were none. They are in the memory of this process, and a process that is killed
    forgets them: whoever uploads the same again finds what was stored unchanged.
    """

    def __init__(self, system: System) -> None:
        self.bus = system.bus
        self._system = system
        self._jobs: dict[str, _Live] = {}
        self._turn = asyncio.Lock()
        self._receiving = 0
        self._stopping = False

    @asynccontextmanager
    async def receiving(self) -> AsyncGenerator[Spool]:
        """Lend a place for an upload, which is to be submitted; what is not is removed.

        Raises:
            TooManyJobs: There are as many as may be, those counted that are being received.
        """
        if self._receiving + len(self._unfinished()) >= MAX_UNFINISHED:
            raise TooManyJobs
        self._receiving += 1
        spool = Spool(self._system.host.threads)
        try:
            yield spool
        except BaseException:
            await spool.remove()
            raise
        finally:
            self._receiving -= 1

    def submit(self, owner: str, spool: Spool) -> Job:
        """Bring an upload into its owner's collection as soon as its turn comes; its files are removed at its end."""
        live = _Live(owner, spool)
        self._jobs[live.job.job_id] = live
        self.bus.open(live.job.job_id)
        live.task = asyncio.create_task(self._work(live), name=f"job {live.job.job_id}")
        if self._stopping:
            self._stop(live)
        return live.snapshot()

    def find(self, owner: str, job_id: str) -> Job | None:
        """Return a job as it is now; None when its owner has none of this id."""
        live = self._jobs.get(job_id)
        return live.snapshot() if live is not None and live.owner == owner else None

    def stop_all(self) -> None:
        """End every job now, before the server stops; what is stored stays."""
        self._stopping = True
        for live in self._unfinished():
            self._stop(live)

    async def close(self) -> None:
        """Stop all, and wait until their files are removed."""
        self.stop_all()
        every = list(self._jobs.values())
        await asyncio.gather(*(live.task for live in every if live.task is not None), return_exceptions=True)
        for live in every:  # a task that is cancelled before its first step removes nothing
            await live.spool.remove()

    def _unfinished(self) -> list[_Live]:
        return [live for live in self._jobs.values() if not live.job.ended]

    def _stop(self, live: _Live) -> None:
        self._end(live, Error(STOPPING))
        if live.task is not None:
            live.task.cancel()

    async def _work(self, live: _Live) -> None:
        try:
            async with self._turn:
                last = await self._outcome(live)
        finally:
            await live.spool.remove()
        self._end(live, last)

    async def _outcome(self, live: _Live) -> Event:
        """Bring the documents in and return the last event."""
        try:
            await self._ingest(live)
        except Exception as broken:  # a job ends with an event, whatever happens
            log.exception("ingestion.failed", job_id=live.job.job_id)
            return Error(_failure(broken))
        return live.completed()

    async def _ingest(self, live: _Live) -> None:
        job = live.job
        job.status = "running"
        job.total = await self._system.host.threads.run(live.spool.count)
        self.bus.publish(job.job_id, IngestionStart(IngestionStarted(job_id=job.job_id, total=job.total)))
        size = min(max(job.total // STEPS, 1), BATCH)
        items = live.spool.items()
        async with aclosing(ingest_items(self._system, items, owner=live.owner, batch_size=size)) as batches:
            async for results in batches:
                job.take(results)
                self._tell(live)
        self._tell(live, at_once=True)

    def _tell(self, live: _Live, *, at_once: bool = False) -> None:
        if event := live.progress(at_once=at_once):
            self.bus.publish(live.job.job_id, event)

    def _end(self, live: _Live, last: Event) -> None:
        """Tell how a job ended; how it ended first stands."""
        job = live.job
        if job.ended:
            return
        job.elapsed_ms = live.elapsed_ms
        job.error = last.content if isinstance(last, Error) else None
        job.status = "error" if job.error else "completed"
        self.bus.close(job.job_id, self.bus.last_frame(job.job_id, last))
        counts = {"stored": job.stored, "unchanged": job.unchanged, "failed": job.failed}
        log.info("ingestion.end", job_id=job.job_id, status=job.status, elapsed_ms=job.elapsed_ms, **counts)
        for outcome, count in counts.items():
            self._system.metrics.documents.labels(outcome).inc(count)
        asyncio.get_running_loop().call_later(KEPT_S, self._forget, job.job_id)
        ended = [job_id for job_id, other in self._jobs.items() if other.job.ended]
        for job_id in ended[:-MAX_KEPT]:
            self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        if self._jobs.pop(job_id, None):
            self.bus.forget(job_id)


def _queued(total: int) -> Job:
    return Job(
        job_id=uuid.uuid4().hex,
        status="queued",
        total=total,
        done=0,
        stored=0,
        unchanged=0,
        failed=0,
        failures=[],
        created_at=datetime.now(UTC),
        elapsed_ms=0.0,
        error=None,
    )


def _failure(broken: Exception) -> Failure:
    """Say in the client's words why a job could not go on."""
    if isinstance(broken, RunError):
        message = clean(str(broken))[:MAX_MESSAGE_CHARS]
        return Failure(message, broken.code or Code.INGESTION_ERROR, STAGE, retryable=broken.retryable)
    return DATABASE_GONE if is_passing(broken) else UNEXPECTED
