"""``stagecast plugins``: what is installed, and what is in force."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.system import check_plugins
from pipeline import registry


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
