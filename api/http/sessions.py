"""``/sessions``: conversations listed, read, renamed, deleted."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import delete, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody, Parameter

from api.http.callers import Caller
from api.http.chat import MAX_BODY_BYTES
from api.http.problems import refuse
from api.runs import Runs
from api.storage.sessions import MessagePage, SessionPage, SessionRow, Sessions
from pipeline.text import clean

MAX_TITLE_CHARS = 200

Limit = Annotated[int, Parameter(ge=1, le=1000)]
Offset = Annotated[int, Parameter(ge=0, le=2**62)]


class SessionChange(msgspec.Struct, forbid_unknown_fields=True):
    """A new title for a conversation."""

    title: str

    def __post_init__(self) -> None:
        self.title = " ".join(clean(self.title).split())
        if not 1 <= len(self.title) <= MAX_TITLE_CHARS:
            raise ValueError(f"field `title`: 1 to {MAX_TITLE_CHARS} characters after trimming")


@get("/sessions")
async def list_sessions(sessions: NamedDependency[Sessions], limit: Limit = 100, offset: Offset = 0) -> SessionPage:
    """Return the conversations, the one that was used last first."""
    return await sessions.page(limit, offset)


@get("/sessions/{session_id:str}")
async def read_session(session_id: str, sessions: NamedDependency[Sessions]) -> SessionRow:
    """Return a conversation without its messages."""
    return await _found(session_id, sessions)


@get("/sessions/{session_id:str}/messages")
async def read_messages(
    session_id: str, sessions: NamedDependency[Sessions], limit: Limit = 100, offset: Offset = 0
) -> MessagePage:
    """Return a conversation's messages, oldest first, answers with their sources."""
    found = await _found(session_id, sessions)
    return await sessions.messages(found.id, limit, offset)


@patch("/sessions/{session_id:str}", request_max_body_size=MAX_BODY_BYTES)
async def rename_session(
    session_id: str, data: JSONBody[SessionChange], sessions: NamedDependency[Sessions]
) -> SessionRow:
    """Rename a conversation."""
    await sessions.rename(clean(session_id), data.title)
    return await _found(session_id, sessions)


@delete("/sessions/{session_id:str}")
async def delete_session(
    session_id: str,
    sessions: NamedDependency[Sessions],
    runs: NamedDependency[Runs],
    caller: NamedDependency[Caller],
) -> None:
    """Delete a conversation; what is being answered in it is stopped first."""
    found = await _found(session_id, sessions)
    if found.running:
        await runs.stop(caller.owner, found.running)
        if not await runs.is_stored(found.running):
            raise refuse(503, "What is being answered in this session could not be ended yet.", retry_after_s=1)
    if not await sessions.delete(found.id):
        raise refuse(409, "This session is answering a question that was asked meanwhile.")


async def _found(session_id: str, sessions: Sessions) -> SessionRow:
    found = await sessions.find(clean(session_id))
    if found is None:
        raise refuse(404, f"There is no session {session_id!r}.")
    return found
