"""``GET /health``, ``GET /health/ready`` and ``GET /plugins``: whether the server lives, can answer, and with what."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get
from litestar.di import NamedDependency

from api import __version__
from api.boot import Boot
from api.http.callers import PUBLIC
from api.http.problems import not_ready
from api.storage.runs import reachable
from api.system import System
from pipeline import registry


class Health(msgspec.Struct, frozen=True):
    """The process lives."""

    status: str
    version: str


class PluginInForce(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that the settings have chosen; ``detail`` is its own word for what it does at present."""

    kind: str
    name: str
    target: str
    distribution: str
    detail: dict[str, Any]


class Plugins(msgspec.Struct, frozen=True):
    """The pipeline in force, stages in their order, and all that is installed."""

    pipeline: list[PluginInForce]
    installed: list[registry.Installed]


@get("/health", **PUBLIC)
async def health() -> Health:
    """Answer as soon as the process lives."""
    return Health("healthy", __version__)


@get("/health/ready", **PUBLIC)
async def ready(boot: NamedDependency[Boot]) -> Health:
    """Answer 200 when questions can be answered, 503 with the reason until then."""
    if boot.system is None or not boot.ready:
        raise not_ready(boot.reason)
    if not await reachable(boot.system.engine):
        raise not_ready("the database cannot be reached")
    return Health("ready", __version__)


@get("/plugins")
async def plugins(system: NamedDependency[System]) -> Plugins:
    """Return the pipeline in force."""
    return Plugins(in_force(system), registry.installed())


def in_force(system: System) -> list[PluginInForce]:
    """Return the plugins that the settings have chosen: stages in their order, then the other parts."""
    stages = [_in_force("stage", name, stage) for name, stage in system.stages]
    made = system.host.made()
    chosen = system.settings.plugins.items()
    return stages + [_in_force(kind, name, system.bus if kind == "bus" else made.get(kind)) for kind, name in chosen]


def _in_force(kind: str, name: str, part: object) -> PluginInForce:
    entry = registry.find(kind, name)
    shown = ("model", "client", "name", "dimension", "method", "state", "reason")
    detail = {key: getattr(part, key) for key in shown if getattr(part, key, None) not in (None, "")}
    return PluginInForce(
        kind=kind, name=name, target=entry.value, distribution=registry.distribution(entry), detail=detail
    )
