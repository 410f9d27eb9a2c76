"""The retriever ``qdrant``: the nearest vectors, found by Qdrant.

Qdrant has the chunks' vectors, owners and metadata, under the chunks' own ids; what they are is read from the database,
so that what is not stored there is not found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IndexUnavailable
from pipeline.host import Host
from pipeline.ports import Database, IndexedChunk, Passage, Scope
from plugins import stored
from plugins.qdrant_access import MEMORY, Local, Qdrant, Server, library
from plugins.stored import Row, passage

PAGE = 10_000
"""Ids that are read, or deleted, at once."""
BATCH = 32
"""Chunks that are sent at once."""

KNOWN = f"select {stored.PASSAGE} from chunk c {stored.OF_DOCUMENT} where c.id = any($1) and c.owner in ('', $2)"  # noqa: S608  # names of ours
DATABASE = """
select d.datname as name, d.oid::text as number, c.system_identifier::text as cluster
  from pg_database d, pg_control_system() c where d.datname = current_database()
"""
"""Of another database, or of one made anew under the same name, something differs."""


class QdrantRetriever:
    """Finds what means the same, by the vectors alone; in Qdrant, on a server or in this process."""

    class Settings(msgspec.Struct, frozen=True):
        """Set by STAGECAST_QDRANT_URL, for example."""

        url: Annotated[
            str,
            msgspec.Meta(
                description="of a Qdrant server; without it Qdrant is in this process, its files in DATA_DIR/qdrant; "
                ":memory: has none"
            ),
        ] = ""
        api_key: Annotated[str, msgspec.Meta(description="of that server")] = ""
        collection: Annotated[
            str,
            msgspec.Meta(
                pattern="^[A-Za-z0-9_-]{1,100}$",
                description="how its collection's name begins; the database's name follows",
            ),
        ] = "stagecast"

        def __post_init__(self) -> None:
            parts = urlsplit(self.url)
            if self.url not in {"", MEMORY} and not (parts.scheme in {"http", "https"} and parts.hostname):
                raise ValueError("the URL must begin with http:// or https://, or be :memory:")

    def __init__(self, host: Host, settings: Settings) -> None:
        self._library = library()
        self._qdrant = _access(self._library, settings, host.options.data_dir)
        self._has_indexes = isinstance(self._qdrant, Server)
        """Of what is beside the vectors."""
        self._database = host.service(Database)
        self._embedder = host.embedder
        self._prefix = settings.collection
        self._collection = ""
        """Known once the index was asked what it holds."""

    async def search(self, question: str, limit: int, scope: Scope) -> list[Passage]:
        """Return the ``limit`` passages nearest to the question; ``score`` is the cosine, 0 for what is below."""
        vector = (await self._embedder.embed([question]))[0]
        depth, before = limit, set[int]()
        while True:
            cosines = await self._nearest(vector, depth, scope)
            rows = await self._database.fetch(KNOWN, list(cosines), scope.owner)
            if len(rows) >= min(limit, len(cosines)) or cosines.keys() == before:
                return _best(rows, cosines, limit)
            depth, before = 2 * depth, set(cosines)  # what is stored no more was in the way of others

    async def sentence_vectors(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]]:
        """Return for each passage the stored vectors of its sentences, in order; none for a passage that is gone."""
        return await stored.sentence_vectors(self._database, passages, self._embedder.dimension)

    async def held_chunks(self) -> NDArray[np.int64]:
        """Return the ids of all points; the collection is made, or made anew, where it has no room for the vectors."""
        try:
            self._collection = self._collection or await self._named()
            await self._make()
            await self._make_indexes()
            return await self._ids()
        except self._qdrant.failures as problem:
            raise self._qdrant.unusable(problem) from problem

    async def add_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        """Send points to Qdrant and wait until they can be found."""
        for start in range(0, len(chunks), BATCH):
            points = [self._point(chunk) for chunk in chunks[start : start + BATCH]]
            await self._ask("upsert", points=points, wait=True)

    async def remove_chunks(self, chunk_ids: Sequence[int]) -> None:
        """Delete points."""
        for start in range(0, len(chunk_ids), PAGE):
            points = self._library.models.PointIdsList(points=list(chunk_ids[start : start + PAGE]))
            await self._ask("delete", points_selector=points, wait=True)

    async def close(self) -> None:
        """Let go of Qdrant."""
        await self._qdrant.close()

    async def _nearest(self, vector: NDArray[np.float32], depth: int, scope: Scope) -> dict[int, float]:
        """Return the cosines of the nearest points by their ids."""
        found = await self._ask(
            "query_points",
            query=vector.tolist(),
            query_filter=self._filter(scope),
            limit=depth,
            with_payload=False,
        )
        return {point.id: point.score for point in found.points}

    def _filter(self, scope: Scope) -> Any:
        """Return the conditions for points; whose they are is asked of the database in any case."""
        models = self._library.models
        must = [
            models.FieldCondition(key="metadata", match=models.MatchValue(value=_term(key, value)))
            for key, value in scope.filters.items()
        ]
        if self._has_indexes:  # without them each condition costs more than all of the search
            must.append(models.FieldCondition(key="owner", match=models.MatchAny(any=["", scope.owner])))
        return models.Filter(must=must) if must else None

    def _point(self, chunk: IndexedChunk) -> Any:
        return self._library.models.PointStruct(
            id=chunk.chunk_id,
            vector=chunk.vector.tolist(),
            payload={
                "owner": chunk.owner,
                "document_id": chunk.document_id,
                "position": chunk.position,
                "metadata": _terms(chunk.metadata),
            },
        )

    async def _named(self) -> str:
        """Return the collection's name, which no other database has the same of."""
        [row] = await self._database.fetch(DATABASE)
        identity = hashlib.sha256(f"{row['cluster']} {row['number']}".encode()).hexdigest()[:8]
        return f"{self._prefix}-{re.sub('[^A-Za-z0-9_-]', '-', row['name'])}-{identity}"

    async def _make(self) -> None:
        name, models = self._collection, self._library.models
        if await self._qdrant.ask("collection_exists", collection_name=name):
            found = await self._qdrant.ask("get_collection", collection_name=name)
            if found.config.params.vectors.size == self._embedder.dimension:
                return
            await self._qdrant.ask("delete_collection", collection_name=name)
        vectors = models.VectorParams(size=self._embedder.dimension, distance=models.Distance.COSINE)
        try:
            await self._qdrant.ask("create_collection", collection_name=name, vectors_config=vectors)
        except self._qdrant.failures:  # another server may have made it meanwhile
            if not await self._qdrant.ask("collection_exists", collection_name=name):
                raise

    async def _make_indexes(self) -> None:
        """Have Qdrant index what is beside the vectors, if it does not yet."""
        name, models = self._collection, self._library.models
        if self._has_indexes:
            for field in ("owner", "metadata"):
                schema = models.PayloadSchemaType.KEYWORD
                await self._qdrant.ask(
                    "create_payload_index", collection_name=name, field_name=field, field_schema=schema
                )

    async def _ids(self) -> NDArray[np.int64]:
        ids: list[int] = []
        offset = None
        while True:
            points, offset = await self._qdrant.ask(
                "scroll",
                collection_name=self._collection,
                limit=PAGE,
                offset=offset,
                with_payload=False,
                with_vectors=False,
            )
            ids += [point.id for point in points]
            if offset is None:
                return np.array(ids, np.int64)

    async def _ask(self, method: str, **arguments: Any) -> Any:
        try:
            return await self._qdrant.ask(method, collection_name=self._collection, **arguments)
        except self._qdrant.failures as failed:
            raise IndexUnavailable("Qdrant") from failed


def _access(client_library: Any, settings: QdrantRetriever.Settings, data_dir: Path) -> Qdrant:
    if settings.url in {"", MEMORY}:
        return Local(client_library, None if settings.url else data_dir / "qdrant")
    return Server(client_library, settings.url, settings.api_key)


def _best(rows: Sequence[Row], cosines: Mapping[int, float], limit: int) -> list[Passage]:
    """Return the nearest passages, best first; of two that are as near, the one that was stored first."""
    best = sorted(rows, key=lambda row: (-cosines[row[0]], row[0]))[:limit]
    return [passage(row, min(max(cosines[row[0]], 0.0), 1.0), {"dense": cosines[row[0]]}) for row in best]


def _terms(metadata: Mapping[str, Any]) -> list[str]:
    """Return all that a filter may name: each key with its value, or with each of the values that are its list."""
    return [
        _term(key, value)
        for key, values in metadata.items()
        for value in (values if isinstance(values, list) else [values])
        if isinstance(value, str | int | float | bool)
    ]


def _term(key: str, value: object) -> str:
    """Return a key and a value as one word: Qdrant compares no fractions, and takes dots in keys for paths.

    A number is the same word with or without ".0", as it is the same for the database.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode([key, value]).decode()
