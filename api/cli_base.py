"""What commands share: settings, an end, a place to print to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from api.settings import Settings


def quiet_settings() -> Settings:
    """Load the settings and log warnings only, unless more is asked for: the terminal is the command's own."""
    from api import logs, settings

    configured = settings.load()
    logs.configure(configured.log_level if configured.log_level == "DEBUG" else "WARNING")
    return configured


def quieted() -> None:
    """Log errors only, in commands that read the settings later or not at all."""
    from api import logs

    logs.configure("ERROR")


def finished(work: Coroutine[Any, Any, int]) -> int:
    """Do a command's work and return its exit code."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        return 130
