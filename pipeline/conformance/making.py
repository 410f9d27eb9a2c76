"""Plugins made for tests: without a database, the other parts being those of :mod:`pipeline.fakes`."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline import plugin_settings, registry
from pipeline.fakes import FakeEmbedder, FakeLLM, FakeReranker, FakeRetriever, passage
from pipeline.host import Host, Options
from pipeline.threads import Threads


@asynccontextmanager
async def made(kind: str, name: str, maker: Callable[..., Any], **settings: object) -> AsyncGenerator[Any]:
    """Lend a plugin as the pipeline would have it; ``settings`` are its own, by their fields' names."""
    threads = Threads(2)
    parts: dict[str, Callable[[Host], object]] = {
        "embedder": lambda _: FakeEmbedder(),
        "retriever": lambda _: FakeRetriever([passage(n) for n in range(1, 4)]),
        "reranker": lambda _: FakeReranker(),
        "llm": lambda _: FakeLLM(["An ", "answer", "."]),
    }
    given = {plugin_settings.prefix(name) + field.upper(): str(value) for field, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Options(data_dir=Path(folder)), threads, parts, given=given)
        try:
            plugin = registry.made_by(maker, kind, name, host)
            await _called(plugin, "warm")
            yield plugin
            await _called(plugin, "close")
        finally:
            threads.close()


async def _called(plugin: object, method: str) -> None:
    """Call what a plugin may have."""
    called = getattr(plugin, method, None)
    if called is not None and inspect.isawaitable(waiting := called()):
        await waiting
