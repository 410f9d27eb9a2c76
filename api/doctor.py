"""``stagecast doctor``: what is wrong with a set-up, and what to change."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import msgspec
from rich.console import Console
from rich.text import Text

from api.terminal import shown

MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "bad": ("FAULT", "bold red")}


class Finding(msgspec.Struct, frozen=True):
    """What was found of one thing; ``remedy`` says what to change, empty when there is nothing to change."""

    what: str
    state: Literal["good", "note", "bad"]
    said: str
    remedy: str = ""


async def diagnose(findings: AsyncGenerator[Finding], *, as_json: bool = False) -> int:
    """Print findings as they come; return the exit code, 1 if one is bad."""
    console, faults = Console(highlight=False), 0
    async with aclosing(findings):
        async for finding in findings:
            faults += finding.state == "bad"
            if as_json:
                sys.stdout.write(msgspec.json.encode(finding).decode() + "\n")
            else:
                _show(finding, console)
    if not as_json:
        console.print(f"\n{faults} fault{'' if faults == 1 else 's'} found.")
    return int(faults > 0)


def _show(finding: Finding, console: Console) -> None:
    mark, style = MARKS[finding.state]
    said = shown(f"  {finding.what}: {finding.said}")
    console.print(Text.assemble((f"{mark:>5}", style), said), soft_wrap=True)
    if finding.remedy:
        console.print(Text(f"       -> {finding.remedy}"), soft_wrap=True)
