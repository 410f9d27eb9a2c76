"""``POST /documents``: files taken as they come, straight to disk, and a job that brings them into the collection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any, BinaryIO

import structlog
from litestar import Response, post
from litestar.di import NamedDependency
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from api.http.callers import RATED, Caller
from api.http.problems import AnyRequest, bad_field, refuse
from api.http.schema import UploadOperation
from api.ingest.jobs import Job, Jobs, TooManyJobs
from api.ingest.spool import Spool
from api.settings import Settings

log = structlog.get_logger()

MB = 1_000_000
MAX_PARTS = 1000
WAIT_S = 5
"""When who was refused for others' uploads may try again."""


def require_form(request: AnyRequest) -> None:
    """Refuse a body that is no form with files, before it is read."""
    kind, options = request.content_type
    if kind != "multipart/form-data" or not options.get("boundary"):
        found = request.headers.get("content-type") or "none"
        raise refuse(415, f"Content-Type: multipart/form-data with a boundary is needed, not {found[:100]!r}.")


@post(
    "/documents",
    status_code=202,
    before_request=require_form,
    request_max_body_size=None,
    operation_class=UploadOperation,
    **RATED,
)
async def upload_documents(
    request: AnyRequest,
    jobs: NamedDependency[Jobs],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
) -> Response[Job]:
    """Take files into the caller's collection; answers with the job that does so, whose progress can be watched."""
    limit = settings.max_upload_mb
    if (request.content_length or 0) > limit * MB:
        raise _too_large(limit)
    try:
        async with jobs.receiving() as spool:
            await _receive(request, spool, limit)
            job = jobs.submit(caller.owner, spool)
    except TooManyJobs as full:
        raise refuse(503, f"{full}.", retry_after_s=WAIT_S) from None
    except OSError:
        log.exception("upload.not_kept")
        raise refuse(503, "The files cannot be kept at the moment; the server's log says why.") from None
    return Response(job, headers={"Location": f"/jobs/{job.job_id}"})


async def _receive(request: AnyRequest, spool: Spool, limit: int) -> None:
    """Write the files of a form into a spool; fields that are no files are passed over."""
    with ExitStack() as opened:
        try:
            file: BinaryIO | None = None
            async for event in _parsed(request, limit):
                if isinstance(event, MultipartSegment):
                    file = None if event.filename is None else opened.enter_context(spool.create(event.filename))
                elif file and event:
                    await spool.write(file, event)
                elif file:
                    file.close()
        except MultipartError as broken:
            raise bad_field("body", f"it is no whole multipart/form-data: {broken}") from None
    if not spool.files:
        raise bad_field("file", "at least one file is needed, as `curl -F file=@notes.md` sends it")


async def _parsed(request: AnyRequest, limit: int) -> AsyncIterator[Any]:
    """Yield the form's parts as they come: where one begins, its bytes in pieces, None where it ends.

    Litestar's own form keeps in memory what is no file, and a million bytes of every file.
    """
    with PushMultipartParser(request.content_type[1]["boundary"], max_segment_count=MAX_PARTS) as parser:
        received = 0
        async for piece in request.stream():
            received += len(piece)
            if received > limit * MB:
                raise _too_large(limit)
            for event in parser.parse(piece):
                yield event


def _too_large(limit: int) -> Exception:
    return refuse(413, f"An upload is {limit} MB at most (STAGECAST_MAX_UPLOAD_MB); send the files in several.")
