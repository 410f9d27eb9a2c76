"""``/documents`` and ``POST /search``: the collection listed, read and deleted from, and retrieval alone."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, Parameter
from msgspec import Meta

from api.http.callers import RATED, Caller
from api.http.chat import MAX_BODY_BYTES, MAX_MESSAGE_CHARS, Filters
from api.http.problems import AnyRequest, refuse
from api.storage.documents import DocumentPage, Documents, WholeDocument
from api.system import System
from pipeline.ports import Passage, Scope
from pipeline.text import clean


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A query; ``limit`` passages at most are returned."""

    query: str
    limit: Annotated[int, Meta(ge=1, le=100)] = 10
    filters: Filters = {}
    """Only passages whose metadata has these values are found."""

    def __post_init__(self) -> None:
        self.query = clean(self.query).strip()
        if not 1 <= len(self.query) <= MAX_MESSAGE_CHARS:
            raise ValueError(f"field `query`: 1 to {MAX_MESSAGE_CHARS:,} characters after trimming")


class SearchResult(msgspec.Struct, frozen=True):
    """Passages, best first, with the scores of each part; ``method`` is what ordered them last."""

    query: str
    method: str
    passages: list[Passage]


@post("/search", status_code=200, request_max_body_size=MAX_BODY_BYTES, **RATED)
async def search(
    data: JSONBody[SearchRequest], system: NamedDependency[System], caller: NamedDependency[Caller]
) -> SearchResult:
    """Retrieve and rerank without answering."""
    host = system.host
    scope = Scope(owner=caller.owner, filters=data.filters)
    found = await host.retriever.search(data.query, max(data.limit, host.options.candidates), scope)
    ranked = await host.reranker.rerank(data.query, found, data.limit)
    return SearchResult(data.query, host.reranker.method, ranked)


@get("/documents")
async def list_documents(
    documents: NamedDependency[Documents],
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    offset: Annotated[int, Parameter(ge=0, le=2**62)] = 0,
) -> DocumentPage:
    """Return the documents by title, a page at a time."""
    return await documents.page(limit, offset)


@get("/documents/{document_id:path}")
async def read_document(document_id: str, request: AnyRequest, documents: NamedDependency[Documents]) -> WholeDocument:  # noqa: ARG001  # for the schema
    """Return a document with its text and chunks."""
    wanted = _sent_id(request)
    found = await documents.find(wanted)
    if found is None:
        raise refuse(404, f"There is no document {wanted!r}.")
    return found


@delete("/documents/{document_id:path}")
async def delete_document(
    document_id: str,  # noqa: ARG001  # for the schema
    request: AnyRequest,
    documents: NamedDependency[Documents],
) -> None:
    """Delete a document of the caller's own; searches that begin now find it no more."""
    wanted = _sent_id(request)
    if await documents.delete(wanted):
        return
    if await documents.find(wanted):
        raise refuse(403, f"The document {wanted!r} is everybody's; a key deletes only what was uploaded with it.")
    raise refuse(404, f"There is no document {wanted!r}.")


def _sent_id(request: AnyRequest) -> str:
    """Return the id as it was sent: the path parameter lacks double and trailing slashes, which ids may have."""
    path, _, _ = request.scope["raw_path"].decode("ascii", "replace").partition("?")
    return clean(unquote(path).removeprefix("/documents/"))
