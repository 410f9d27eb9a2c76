"""``stagecast plugins``: what is installed, what is in force, and what can be set of one."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.system import check_plugins
from pipeline import plugin_settings, registry
from pipeline.errors import ConfigurationError


def list_plugins(settings: Settings) -> None:
    """Print every installed plugin by kind; those that the settings name are marked.

    Raises:
        ConfigurationError: The settings name one that is not installed.
    """
    chosen = {*settings.plugins.items(), *(("stage", name) for name in settings.stages)}
    table = Table("", "kind", "name", "from", box=None, header_style="bold", pad_edge=False)
    table.add_column("object", overflow="fold")
    for row in registry.installed():
        mark = "*" if (row.kind, row.name) in chosen else ""
        table.add_row(mark, row.kind, row.name, row.distribution, row.target)
    console = Console()
    console.print(table)
    console.print(f"\n* in force; stages in this order: {', '.join(settings.stages)}")
    check_plugins(settings)


def show_plugins(settings: Settings, name: str) -> None:
    """Print every plugin of a name: what it is, and its own settings with what they are now.

    Raises:
        ConfigurationError: There is none, or its settings cannot be read.
    """
    rows = [row for row in registry.installed() if row.name == name]
    if not rows:
        raise ConfigurationError(f"no plugin is named {name!r}; `stagecast plugins` lists those that are installed")
    console = Console()
    for row in rows:
        console.print(f"[bold]{row.kind} {row.name}[/bold]  {row.target}, from {row.distribution}", highlight=False)
        about = inspect.getdoc(registry.find(row.kind, row.name).load()) or ""
        console.print(about.partition("\n\n")[0], markup=False, highlight=False)
        _show_settings(console, settings, plugin_settings.listed(registry.declared(row.kind, row.name), row.name))


def _show_settings(console: Console, settings: Settings, listed: list[plugin_settings.Setting]) -> None:
    if not listed:
        console.print("It has no settings of its own.\n")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for name in ("takes", "default", "now", ""):
        table.add_column(name, overflow="fold")
    for one in listed:
        now = settings.of_plugins.get(one.variable, "")
        shown = "(hidden)" if now and plugin_settings.SECRET.search(one.variable) else now
        table.add_row(
            one.variable, one.kind, "(needed)" if one.default is None else one.default, shown, one.description
        )
    console.print(table, "")
