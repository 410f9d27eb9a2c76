"""What ``stagecast doctor`` looks at on this machine: settings, port, plugins, database, collection, models, keys."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from api import settings as settings_module
from api.doctor import Finding
from api.settings import Settings
from api.storage import migrate
from api.storage.database import DatabaseUnreachable, opened
from api.storage.keys import Keys
from api.system import System, check_plugins, running, warm
from pipeline import prompts, registry
from pipeline.errors import GenerationFailed, IndexInUse, StagecastError
from pipeline.ports import Finish, Passage, Scope

T = TypeVar("T")
PATIENCE_S = 30.0
"""For one part: a model that is loaded for the first time takes several seconds."""
LITTLE_ROOM_GB = 1.0
QUESTION = "What is this about?"
ZEBRA = Passage(chunk_id=0, document_id="zebra", title="Zebra", text="The zebra has stripes.", score=1.0)


async def here(port: int) -> AsyncGenerator[Finding]:
    """Yield what is found on this machine, as a server on ``port`` with the same settings would meet it."""
    try:
        settings = settings_module.load()
    except StagecastError as problem:
        yield Finding("settings", "bad", str(problem), "correct it in the environment or in .env")
        return
    chosen = sorted(settings.model_fields_set)
    yield Finding("settings", "good", f"{len(chosen)} given" + (f": {', '.join(chosen)}" if chosen else ""))
    yield await _port(port)
    yield _room(settings)
    broken = list(_plugins(settings))
    for finding in broken:
        yield finding
    if any(finding.state == "bad" for finding in broken):
        return
    async with aclosing(_system(settings)) as findings:
        async for finding in findings:
            yield finding


async def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            taken = problem.strerror
        else:
            return Finding("port", "good", f"{port} is free")
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
            found = (await client.get(f"http://127.0.0.1:{port}/health")).json()["version"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Finding("port", "bad", f"{port}: {taken}", "stop what runs there, or serve on another --port")
    return Finding("port", "good", f"Stagecast {found} serves on {port} already")


def _room(settings: Settings) -> Finding:
    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    said = f"{folder}, {free_gb:.1f} GB free"
    if free_gb < LITTLE_ROOM_GB:
        return Finding("data folder", "note", said, "make room, or set STAGECAST_DATA_DIR")
    return Finding("data folder", "good", said)


def _plugins(settings: Settings) -> list[Finding]:
    """Import every plugin that the settings name."""
    try:
        check_plugins(settings)
    except StagecastError as problem:
        return [Finding("plugins", "bad", str(problem), "`stagecast plugins` lists what is installed")]
    found = []
    for kind, name in [*settings.plugins.items(), *(("stage", name) for name in settings.stages)]:
        try:
            registry.find(kind, name).load()
        except Exception as problem:  # noqa: BLE001  # whatever a plugin does when it is imported
            said = f"{kind} {name} cannot be imported: {type(problem).__name__}: {problem}"
            found.append(Finding("plugins", "bad", said, "install its package anew, with what it needs"))
    return found or [Finding("plugins", "good", ", ".join(f"{kind} {name}" for kind, name in settings.plugins.items()))]


async def _system(settings: Settings) -> AsyncGenerator[Finding]:
    try:
        async with opened(settings, share=True, migrated=False) as engine:
            database = await _database(settings, engine)
            yield database
            if database.state != "good":  # what follows would bring the tables up to date, under a server of before
                return
            yield await _keys(settings, engine)
        async with running(settings, share=True) as system, aclosing(_parts(system)) as findings:
            async for finding in findings:
                yield finding
    except DatabaseUnreachable as problem:
        remedy = "start it, or correct STAGECAST_DATABASE_URL; without the setting Stagecast brings its own"
        yield Finding("database", "bad", str(problem), remedy)
    except IndexInUse as problem:
        yield Finding("retriever", "note", str(problem), "while a server runs, look at it with --url")
    except StagecastError as problem:
        yield Finding("start", "bad", str(problem))


async def _parts(system: System) -> AsyncGenerator[Finding]:
    yield await _collection(system)
    host = system.host
    for kind, work in (
        ("embedder", lambda: _embeds(host.embedder)),
        ("retriever", lambda: _finds(system)),
        ("reranker", lambda: _reranks(host.reranker)),
        ("llm", lambda: _answers(system)),
    ):
        yield await _timed(kind, system.settings.plugins[kind], work)


async def _database(settings: Settings, engine: AsyncEngine) -> Finding:
    versions = "select current_setting('server_version'), extversion from pg_extension where extname = 'vector'"
    async with engine.connect() as connection:
        server, vector = (await connection.execute(text(versions))).one()
        tables, newest = await connection.run_sync(migrate.revisions)
    said = f"{'of the settings' if settings.database_url else 'embedded'}, PostgreSQL {server}, pgvector {vector}"
    if tables in {None, newest}:
        return Finding("database", "good", f"{said}, tables {'up to date' if tables else 'made at the first start'}")
    said = f"{said}, its tables are those of revision {tables}, and this version's of {newest}"
    remedy = "a start or `stagecast migrate` brings older ones up to date; newer ones need the version that made them"
    return Finding("database", "note", said, remedy)


async def _collection(system: System) -> Finding:
    documents = await system.documents.count()
    if documents:
        return Finding("collection", "good", f"{documents} documents")
    if system.settings.sample:
        return Finding("collection", "note", "empty; the server will fill it with the sample collection")
    return Finding("collection", "note", "empty: every question will be refused", "`stagecast ingest PATH`")


async def _keys(settings: Settings, engine: AsyncEngine) -> Finding:
    async with engine.connect() as connection:
        has_tables = await connection.scalar(text("select to_regclass('api_key') is not null"))
    count = len(settings.api_keys) + (await Keys(engine).count() if has_tables else 0)
    if count:
        return Finding("keys", "good", f"{count}")
    return Finding("keys", "note", "none: only this machine can be served", "`stagecast keys add NAME` to serve others")


async def _timed(kind: str, name: str, work: Callable[[], Awaitable[str]]) -> Finding:
    begun = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = await work()
    except TimeoutError:
        return Finding(kind, "bad", f"{name} did not answer within {PATIENCE_S:.0f} s", _remedy(kind))
    except StagecastError as problem:
        cause = problem.__cause__
        behind = f" ({type(cause).__name__})" if cause else ""
        return Finding(kind, "bad", f"{name}: {problem}{behind}", _remedy(kind))
    except Exception as problem:  # noqa: BLE001  # whatever a plugin does
        return Finding(kind, "bad", f"{name}: {type(problem).__name__}: {problem}", f"`stagecast check {name}`")
    return Finding(kind, "good", f"{name}: {said}, {time.monotonic() - begun:.2f} s")


def _remedy(kind: str) -> str:
    if kind == "llm":
        return "check STAGECAST_LLM_MODEL, STAGECAST_LLM_API_BASE and the provider's key, OPENAI_API_KEY for example"
    return f"check what the {kind} needs; the README's settings say what can be set"


async def _embeds(embedder: Any) -> str:
    await warm(embedder)
    vectors = await embedder.embed([QUESTION])
    return f"vectors of {vectors.shape[1]} numbers"


async def _finds(system: System) -> str:
    await warm(system.host.retriever)
    found = await system.host.retriever.search(QUESTION, system.settings.candidates, Scope())
    return f"{len(found)} passages found"


async def _reranks(reranker: Any) -> str:
    await warm(reranker)
    if hasattr(reranker, "settled"):
        await reranker.settled()
    return f"orders by {reranker.method}"


async def _answers(system: System) -> str:
    """Ask the LLM about a passage and take no more than the beginning of its answer."""
    llm = system.host.llm
    await warm(llm)
    async with aclosing(llm.stream(prompts.build("What has the zebra?", [ZEBRA], [], 0))) as pieces:
        async for piece in pieces:
            if piece and not isinstance(piece, Finish):
                return f"{llm.model} answers"
    raise GenerationFailed("its answer was empty")
