"""``stagecast check``: an installed plugin put through the checks of its port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console

from api.settings import Settings
from api.system import close, running, warm
from pipeline import registry
from pipeline.conformance.checks import CHECKS, verdicts
from pipeline.errors import ConfigurationError
from pipeline.host import Host
from pipeline.threads import Threads


async def check(settings: Settings, name: str) -> int:
    """Check every plugin of a name, or one of ``kind:name``, print what was found, and return the exit code.

    Raises:
        ConfigurationError: There is none, or it cannot be made.
    """
    wanted, _, name = name.rpartition(":")
    named = [row.kind for row in registry.installed() if row.name == name and row.kind in CHECKS]
    kinds = [kind for kind in named if wanted in {"", kind}]
    if not kinds:
        raise ConfigurationError(
            f"no {', '.join(CHECKS)} is named {name!r}; `stagecast plugins` lists those that are installed"
        )
    console, breaches = Console(), 0
    for kind in kinds:
        console.print(f"[bold]{kind} {name}[/bold]")
        async with ready(settings, kind, name) as plugin:
            async for one in verdicts(kind, plugin):
                breaches += bool(one.breach)
                mark = "[red]failed[/red]" if one.breach else "[green]passed[/green]"
                console.print(f"{mark}  {one.check}")
                if one.breach:
                    console.print(f"        {one.breach}", style="red", markup=False, highlight=False)
    return min(breaches, 1)


@asynccontextmanager
async def ready(settings: Settings, kind: str, name: str) -> AsyncGenerator[Any]:
    """Lend a plugin that is ready, whatever the settings have in force."""
    if kind == "embedder":  # a collection belongs to the embedder that filled it, so this one is made without
        threads = Threads(settings.threads)
        try:
            plugin = registry.make(kind, name, Host(settings.options, threads, {}, given=settings.of_plugins))
            await warm(plugin)
            yield plugin
            await close(plugin)
        finally:
            threads.close()
        return
    chosen = settings if kind == "stage" else settings.model_copy(update={kind: name})
    async with running(chosen, share=True) as system:
        host = system.host
        plugin = registry.make("stage", name, host) if kind == "stage" else getattr(host, kind)
        for part in (*host.made().values(), plugin):
            await warm(part)
        yield plugin
        if kind == "stage":
            await close(plugin)
