"""``stagecast runs`` and ``stagecast replay``: stored runs, looked at again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from datetime import datetime

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.ask import show_answer
from api.client import Numbered, decoded
from api.settings import Settings
from api.storage.database import opened
from api.storage.patience import LimitedEngine
from api.storage.recorded import Listed, RecordedRuns
from api.terminal import shown

PIPE_WIDTH = 160
"""Of a table that is not printed to a terminal."""


async def list_runs(
    settings: Settings, limit: int, owner: str | None, status: str | None, *, as_json: bool = False
) -> int:
    """Print the runs that were asked last; return the exit code."""
    async with opened(settings, share=True) as engine:
        listed = await RecordedRuns(LimitedEngine(engine)).latest(limit, owner, status)
    if as_json:
        for run in listed:
            sys.stdout.write(msgspec.json.encode(run).decode() + "\n")
    elif listed:
        console = Console(highlight=False)
        console.width = console.width if console.is_terminal else PIPE_WIDTH
        console.print(_table(listed))
    else:
        Console().print("There is no such run.")
    return 0


def _table(listed: list[Listed]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("run", "asked", "status", "s", "first, s", "tokens", "owner"):
        numbers = name in {"s", "first, s", "tokens"}
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True, min_width=len(name))
    table.add_column("question", no_wrap=True, overflow="ellipsis", ratio=1)
    for run in listed:
        asked = run.asked_at.astimezone().strftime("%m-%d %H:%M:%S")
        question = Text(shown(" ".join((run.question or "").split())))
        times = (_seconds(run.elapsed_ms), _seconds(run.first_token_ms), str(run.token_count or ""))
        table.add_row(run.run_id[:12], asked, run.status, *times, run.owner, question)
    return table


def _seconds(ms: float | None) -> str:
    return "" if ms is None else f"{ms / 1000:.2f}"


async def replay_run(settings: Settings, run_id: str, speed: float, *, sse: bool = False) -> int:
    """Stream a stored run as it was, ``speed`` times as fast, all at once for 0; return the exit code.

    ``sse``: the bytes that were sent, instead of what they mean.

    Raises:
        UnknownRunId, NotKept: It cannot be had.
    """
    async with opened(settings, share=True) as engine:
        stored = RecordedRuns(LimitedEngine(engine))
        frames = await stored.frames((await stored.find(run_id)).run_id)
    timed = in_time(frames, speed)
    if not sse:
        return await show_answer(_numbered(timed))
    async for frame in timed:
        sys.stdout.buffer.write(frame)
        sys.stdout.buffer.flush()
    return 0


async def in_time(frames: list[bytes], speed: float) -> AsyncGenerator[bytes]:
    """Yield frames at the distances of their timestamps, divided by ``speed``; 0: at once."""
    loop = asyncio.get_running_loop()
    begun, first = loop.time(), _sent_at(frames[0])
    for frame in frames:
        due = (_sent_at(frame) - first).total_seconds() / speed if speed else 0.0
        if (left_s := begun + due - loop.time()) > 0:
            await asyncio.sleep(left_s)
        yield frame


class _Stamped(msgspec.Struct):
    timestamp: datetime


def _sent_at(frame: bytes) -> datetime:
    return msgspec.json.decode(frame.partition(b"data: ")[2], type=_Stamped).timestamp


async def _numbered(frames: AsyncGenerator[bytes]) -> AsyncGenerator[Numbered]:
    number = 0
    async for frame in frames:
        number += 1
        yield number, decoded(frame.partition(b"data: ")[2])
