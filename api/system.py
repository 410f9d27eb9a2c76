"""The whole system, put together: database, plugins, runner. The server and the command line both run in it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import structlog
from sqlalchemy import QueuePool
from sqlalchemy.ext.asyncio import AsyncEngine

from api.metrics import Metrics
from api.runs import Capacity, Runs
from api.settings import KNOWN, Settings
from api.storage import database
from api.storage.documents import Documents
from api.storage.indexing import catch_up, indexed
from api.storage.patience import LimitedEngine
from api.storage.runs import PostgresRuns
from api.storage.worker import Worker
from api.tracing import Tracing, tracing
from pipeline import plugin_settings, registry
from pipeline.errors import BadSetting
from pipeline.host import Host
from pipeline.ports import Database, EventBus, IndexedRetriever, Stage
from pipeline.runner import Runner
from pipeline.threads import Threads

log = structlog.get_logger()


class System(msgspec.Struct, frozen=True):
    """What the interfaces work with."""

    settings: Settings
    engine: AsyncEngine
    """Whoever waits for it is a caller, and waits for seconds at most."""
    host: Host
    indexed: IndexedRetriever | None
    """The retriever, if it has an index of its own that is to be fed."""
    stages: list[tuple[str, Stage]]
    bus: EventBus
    runner: Runner
    runs: Runs
    documents: Documents
    """Those that everybody may read."""
    worker: Worker
    metrics: Metrics
    traces: Tracing | None


def check_plugins(settings: Settings) -> None:
    """Find every plugin that the settings name, importing none.

    Raises:
        ConfigurationError: One is not installed, or is offered twice.
    """
    for kind, name in settings.plugins.items():
        registry.find(kind, name)
    for name in settings.stages:
        registry.find("stage", name)


def plugin_modules(settings: Settings) -> dict[str, str]:
    """Return the kind and name of the plugin in force behind each module."""
    chosen = [*settings.plugins.items(), *(("stage", name) for name in settings.stages)]
    return {registry.find(kind, name).module: f"{kind} {name}" for kind, name in chosen}


@asynccontextmanager
async def running(settings: Settings, *, share: bool = False, renew: bool = False) -> AsyncGenerator[System]:
    """Start the database, make the plugins, and lend the system until the end.

    ``share``: use the embedded database of a server that runs already, if there is one. ``renew``: take all vectors out
    of the store first, so that they can be made anew with the embedder in force.

    Raises:
        ConfigurationError: Something cannot be started; the message names it and the remedy.
    """
    check_plugins(settings)
    threads = Threads(settings.threads)
    try:
        async with database.opened(settings, share=share) as engine:
            system = _assemble(settings, engine, threads)
            if not system.host.embedder.dimension:
                await warm(system.host.embedder)
            if renew:  # before anything is emptied
                await system.host.embedder.embed(["ready?"])
                if system.indexed:
                    await system.indexed.held_chunks()
            await Documents(engine).bind(system.host.embedder, renew=renew)
            await system.worker.begin()
            try:
                if system.indexed:
                    await catch_up(engine, system.indexed)
                yield system
            finally:
                await system.runner.close()
                await system.worker.end()
                if system.traces:
                    await asyncio.to_thread(system.traces.close)
                for part in (*system.host.made().values(), *(stage for _, stage in system.stages)):
                    await close(part)
    finally:
        threads.close()


def _assemble(settings: Settings, patient: AsyncEngine, threads: Threads) -> System:
    engine = LimitedEngine(patient)
    makers = {kind: partial(registry.make, kind, name) for kind, name in settings.plugins.items()}
    services = {AsyncEngine: engine, Database: engine}
    host = Host(settings.options, threads, makers, services, settings.of_plugins)
    stages: list[tuple[str, Stage]] = [(name, registry.make("stage", name, host)) for name in settings.stages]
    bus: EventBus = registry.make("bus", settings.bus, host)
    own_index = indexed(host)
    _check_plugins_settings(settings, [*host.made()])
    # The worker keeps its connection, so it must not be one of those that requests wait for.
    worker = Worker(database.connect(patient.url, 0), settings.event_retention_s, live=lambda: runner.ids)
    store = PostgresRuns(engine, worker.key)
    metrics = Metrics()
    traces = tracing(settings.traces)
    runner = Runner(stages, bus, store, settings.limits, [metrics, *([traces] if traces else [])])
    capacity = Capacity(settings.max_streams, settings.max_streams_per_key)
    runs = Runs(runner, bus, store, capacity, settings.resume_grace_s)
    log.info("system.assembled", stages=list(settings.stages), **settings.plugins)
    _show_gauges(metrics, engine, runs)
    documents = Documents(engine, retriever=own_index)
    return System(settings, engine, host, own_index, stages, bus, runner, runs, documents, worker, metrics, traces)


def _show_gauges(metrics: Metrics, engine: AsyncEngine, runs: Runs) -> None:
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    metrics.gauge("runs_under_way", "Questions that are being answered.", lambda: runs.count)
    metrics.gauge("open_streams", "Readers of runs that are connected.", lambda: runs.readers)
    metrics.gauge("database_connections_in_use", "Connections lent by the database's pool.", pool.checkedout)
    metrics.gauge("database_connections", "As many as the database's pool may lend.", pool.size)


def _check_plugins_settings(settings: Settings, made: list[str]) -> None:
    """Refuse variables that no plugin in force knows, and plugins whose settings are named like the server's."""
    in_force = [(kind, settings.plugins[kind]) for kind in made]
    in_force += [("bus", settings.bus), *(("stage", name) for name in settings.stages)]
    known = {
        setting.variable
        for kind, name in in_force
        for setting in plugin_settings.listed(registry.declared(kind, name), name)
    }
    if taken := sorted(known & KNOWN):
        raise BadSetting(f"a plugin declares {', '.join(taken)}, which the server itself has; rename the plugin")
    prefixes = tuple(plugin_settings.prefix(name) for _, name in in_force)
    if odd := sorted(name for name in settings.of_plugins if name.startswith(prefixes) and name not in known):
        named = ", ".join(sorted(known)) or "none"
        raise BadSetting(f"unknown setting {', '.join(odd)}; those of the plugins in force: {named}")


async def warm(part: Any) -> None:
    """Load what a plugin would otherwise load at its first use."""
    await _called(part, "warm")


async def close(part: Any) -> None:
    """Let go of what a plugin holds."""
    await _called(part, "close")


async def _called(part: Any, name: str) -> None:
    """Call a method that a plugin may have, async or not."""
    method = getattr(part, name, None)
    if method is not None and inspect.isawaitable(made := method()):
        await made


async def warm_all(system: System) -> None:
    """Load everything that the first question would wait for."""
    for part in (*system.host.made().values(), *(stage for _, stage in system.stages)):
        await warm(part)
