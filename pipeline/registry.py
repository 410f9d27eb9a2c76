"""Finds plugins by entry point, imports those that the settings name, and checks each against its port."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from pipeline import plugin_settings
from pipeline.errors import ConfigurationError
from pipeline.host import Host
from pipeline.threaded import as_async

ASYNC_GENERATOR = re.compile(r"([\w.]+\.)?AsyncGenerator\[")
"""As an annotation, also one that was left a string."""


class Port(msgspec.Struct, frozen=True):
    """What a plugin of one entry-point group must have; methods with the number of their arguments."""

    kind: str
    group: str
    calls: dict[str, int] = {}
    """Awaited; may be plain functions."""
    streams: dict[str, int] = {}
    """Async generators; may be plain generators."""
    functions: dict[str, int] = {}
    """Plain functions, called on the loop."""
    attributes: tuple[str, ...] = ()


PORTS = {
    port.kind: port
    for port in (
        Port("stage", "stagecast.stages", streams={"run": 1}),
        Port("retriever", "stagecast.retrievers", calls={"search": 3}),
        Port("reranker", "stagecast.rerankers", calls={"rerank": 3}, attributes=("method",)),
        Port("llm", "stagecast.llms", streams={"stream": 1}, attributes=("model",)),
        Port(
            "embedder",
            "stagecast.embedders",
            calls={"embed": 1},
            functions={"count_tokens": 1},
            attributes=("name", "dimension", "max_tokens"),
        ),
        Port(
            "bus",
            "stagecast.buses",
            calls={"frames": 1},
            functions={"open": 1, "publish": 2, "last_frame": 2, "close": 2, "forget": 1},
            streams={"read": 2},
        ),
    )
}


class UnknownPlugin(ConfigurationError):
    """A plugin that the settings name is not installed."""

    def __init__(self, kind: str, name: str, installed: Iterable[str]) -> None:
        super().__init__(f"no {kind} named {name!r}; installed: {', '.join(sorted(installed)) or 'none'}")


class DuplicatePlugin(ConfigurationError):
    """Two distributions offer a plugin of the same name."""

    def __init__(self, kind: str, name: str, distributions: Iterable[str]) -> None:
        offered = " and ".join(sorted(distributions))
        super().__init__(f"the {kind} {name!r} is offered by {offered}; uninstall one of them")


class BrokenPlugin(ConfigurationError):
    """A plugin cannot be imported or made, or does not keep its port."""

    def __init__(self, kind: str, entry: EntryPoint, reason: str) -> None:
        super().__init__(f"the {kind} {entry.name!r} ({entry.value}, from {distribution(entry)}) {reason}")


class PortNotKept(TypeError):
    """A plugin lacks what its port asks for."""


class Installed(msgspec.Struct, frozen=True):
    """A plugin that could be named in the settings; it is not imported to be listed."""

    kind: str
    name: str
    target: str
    distribution: str


def distribution(entry: EntryPoint) -> str:
    """Return the entry point's distribution and version, for example ``stagecast 0.1.0``."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def installed() -> list[Installed]:
    """Return every plugin of every group, by kind and name."""
    rows = (
        Installed(port.kind, entry.name, entry.value, distribution(entry))
        for port in PORTS.values()
        for entry in entry_points(group=port.group)
    )
    return sorted(rows, key=lambda row: (list(PORTS).index(row.kind), row.name, row.distribution))


def find(kind: str, name: str) -> EntryPoint:
    """Return the one entry point of this kind and name.

    Raises:
        UnknownPlugin: There is none.
        DuplicatePlugin: There are several.
    """
    offered = entry_points(group=PORTS[kind].group)
    found = [entry for entry in offered if entry.name == name]
    if not found:
        raise UnknownPlugin(kind, name, {entry.name for entry in offered})
    if len(found) > 1:
        raise DuplicatePlugin(kind, name, [distribution(entry) for entry in found])
    return found[0]


def make(kind: str, name: str, host: Host) -> Any:
    """Import, make and check the plugin; plain functions are made to run in the host's threads.

    Raises:
        UnknownPlugin, DuplicatePlugin: See :func:`find`.
        BadSetting: One of its own settings is missing or malformed.
        BrokenPlugin: Its import or constructor raised, or it lacks what its port asks for.
    """
    entry = find(kind, name)
    try:
        return made_by(entry.load(), kind, name, host)
    except ConfigurationError:
        raise
    except PortNotKept as breach:
        raise BrokenPlugin(kind, entry, f"does not keep its port: {breach}") from None
    except Exception as problem:
        raise BrokenPlugin(kind, entry, f"failed to start: {type(problem).__name__}: {problem}") from problem


def made_by(maker: Callable[..., object], kind: str, name: str, host: Host) -> Any:
    """Make a plugin that need not be installed, as :func:`make` does.

    Raises:
        BadSetting: One of its own settings is missing or malformed.
        PortNotKept: It lacks what its port asks for.
    """
    own, port = plugin_settings.declared_by(maker), PORTS[kind]
    plugin = maker(host, plugin_settings.read(own, name, host.given)) if own else maker(host)
    if breach := _breach(plugin, port):
        raise PortNotKept(breach)
    return as_async(plugin, host.threads, port.calls, port.streams)


def declared(kind: str, name: str) -> plugin_settings.Settings | None:
    """Return the settings that a plugin declares for itself, if it does; it is imported for that."""
    return plugin_settings.declared_by(find(kind, name).load())


def _breach(plugin: object, port: Port) -> str | None:
    """Say in what the plugin falls short of its port; None when it keeps it."""
    for name in port.attributes:
        if not hasattr(plugin, name):
            return f"it has no attribute {name!r}"
    for name, count in (port.calls | port.streams | port.functions).items():
        method = getattr(plugin, name, None)
        if not callable(method):
            return f"it has no method {name!r}"
        if not _takes(method, count):
            return f"its method {name!r} must take {count} argument{'s' if count > 1 else ''}"
    for name in port.streams:
        if not _yields(getattr(plugin, name)):
            return (
                f"its method {name!r} must be a generator or an async generator: it yields; a function that returns an "
                "async one must be annotated with AsyncGenerator"
            )
    return None


def _yields(method: Any) -> bool:
    """Say whether a method is a generator, or a function that is annotated to return an async one."""
    if inspect.isasyncgenfunction(method) or inspect.isgeneratorfunction(method):
        return True
    is_wrapped = inspect.unwrap(method) is not method  # a decorator's annotations are those of what it decorates
    if is_wrapped or inspect.iscoroutinefunction(method):
        return False
    return ASYNC_GENERATOR.match(str(inspect.signature(method).return_annotation)) is not None


def _takes(method: Any, count: int) -> bool:
    try:
        inspect.signature(method).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True
