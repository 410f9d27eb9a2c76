"""Checks for plugins of every kind: odd texts, many at once, leaving, the event loop, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from pipeline.conformance.uses import QUESTION, Breach, used

CANCEL_S = 0.1
BLOCKED_S = 0.05
TRIES = 3
"""The best of so many counts: a busy machine makes a plugin slow, and never quick."""
AT_ONCE = 20
CANCELS = 200
SETTLE_S = 5.0
LOOK_S = 0.002
TEXTS = (
    "¿Qué es la aripiprazol? 日本語 עברית 👩‍⚕️ \u202e",
    "a",
    "?!",
    "aripiprazole " * 380,  # as long as a question may be
)


async def takes_any_text(kind: str, plugin: Any) -> None:
    """Questions in any script, of one sign, and of 5,000 characters are no errors."""
    for text in TEXTS:
        try:
            await used(kind, plugin, text)
        except Breach as breach:
            raise Breach(f"asked {text[:30]!r}: {breach}") from breach


async def serves_many_at_once(kind: str, plugin: Any) -> None:
    """Twenty questions at once are all answered."""
    uses = (used(kind, plugin, f"{QUESTION} {n}") for n in range(AT_ONCE))
    for made in await asyncio.gather(*uses, return_exceptions=True):
        if isinstance(made, BaseException):
            raise made


async def stops_when_cancelled(kind: str, plugin: Any) -> None:
    """A use that is cancelled, at whatever point, ends within 100 ms, as cancelled."""
    whole_s = await _took_s(used(kind, plugin))
    for part in (0.0, 0.25, 0.5, 0.75):
        ended_s = min([await _cancelled_s(kind, plugin, part * whole_s) for _ in range(TRIES)])
        if ended_s > CANCEL_S:
            raise Breach(
                f"cancelled after {part * whole_s * 1000:.0f} ms it took {ended_s * 1000:.0f} ms to end; at most "
                f"{CANCEL_S * 1000:.0f} are allowed: let CancelledError through, and hold nothing up in `finally`"
            )


async def leaves_the_loop_free(kind: str, plugin: Any) -> None:
    """No use holds the event loop up for more than 50 ms."""
    held_s = min([await _longest_turn_s(kind, plugin) for _ in range(TRIES)])
    if held_s > BLOCKED_S:
        raise Breach(
            f"it held the event loop up for {held_s * 1000:.0f} ms, and with it everybody's streams; at most "
            f"{BLOCKED_S * 1000:.0f} are allowed: make the method a plain function, or use host.threads"
        )


async def leaves_nothing_behind(kind: str, plugin: Any) -> None:
    """After 200 cancelled uses there are as many tasks and open files as before."""
    whole_s = await _took_s(used(kind, plugin))
    await _cancel_many(kind, plugin, whole_s, AT_ONCE)  # opens what is kept, pools of connections say
    tasks, files = len(asyncio.all_tasks()), _open_files()
    await _cancel_many(kind, plugin, whole_s, CANCELS)
    deadline = time.monotonic() + SETTLE_S
    while (more := len(asyncio.all_tasks()) - tasks) > 0 or _open_files() > files + AT_ONCE:
        if time.monotonic() > deadline:
            raise Breach(
                f"after {CANCELS} cancelled uses there are {more} tasks and {_open_files() - files} open files more "
                "than before: end what was begun in `finally`"
            )
        await asyncio.sleep(0.05)


async def _took_s(use: Any) -> float:
    begun = time.monotonic()
    await use
    return time.monotonic() - begun


async def _cancelled_s(kind: str, plugin: Any, after_s: float) -> float:
    task = asyncio.ensure_future(used(kind, plugin))
    await asyncio.sleep(after_s)
    begun = time.monotonic()
    task.cancel()
    await asyncio.wait({task}, timeout=10 * CANCEL_S)
    took_s = time.monotonic() - begun
    if task.done() and not task.cancelled() and (problem := task.exception()):
        raise problem
    return took_s


async def _longest_turn_s(kind: str, plugin: Any) -> float:
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun = time.monotonic()
            await asyncio.sleep(LOOK_S)
            longest_s = max(longest_s, time.monotonic() - begun - LOOK_S)

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    try:
        await used(kind, plugin)
        await asyncio.sleep(0.01)
    finally:
        watching.cancel()
    return longest_s


async def _cancel_many(kind: str, plugin: Any, whole_s: float, times: int) -> None:
    for first in range(0, times, AT_ONCE):
        together = range(first, min(first + AT_ONCE, times))
        tasks = [asyncio.ensure_future(used(kind, plugin, f"{QUESTION} {n}")) for n in together]
        await asyncio.sleep(whole_s * (first % 7) / 7)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await asyncio.gather(*tasks, return_exceptions=True)


def _open_files() -> int:
    """Return how many descriptors this process has; 0 where that cannot be seen."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


COMMON = (takes_any_text, serves_many_at_once, stops_when_cancelled, leaves_the_loop_free, leaves_nothing_behind)
