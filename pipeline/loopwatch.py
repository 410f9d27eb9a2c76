"""Notices that the event loop stands still, which holds up every run, and names the plugin whose code it is in."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Self

import structlog

log = structlog.get_logger()

LOOK_S = 0.1
BLOCKED_S = 0.2
"""Shorter pauses are common on a busy machine."""


class LoopWatch:
    """Looks from a thread of its own whether the loop still turns; to be entered in the loop.

    ``plugins``: what to call the plugin of each module, for example ``{"my_plugins": "llm parrot"}``. ``told`` is
    given the seconds that each look waited for the loop, in the watching thread.
    """

    def __init__(self, plugins: Mapping[str, str], told: Callable[[float], object] | None = None) -> None:
        self._plugins = plugins
        self._told = told
        self._left = threading.Event()
        self._turned = threading.Event()
        self._turned_at = 0.0
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._turned.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._left.wait(LOOK_S):
            asked = time.monotonic()
            self._turned.clear()
            if self._left.is_set():  # set before the loop waits for this thread, which would answer nobody then
                return
            self._loop.call_soon_threadsafe(self._turn)
            if not self._turned.wait(BLOCKED_S):
                self._tell()
                self._turned.wait()
                log.warning("loop.free_again", blocked_ms=round((time.monotonic() - asked) * 1000))
            if self._told and not self._left.is_set():
                self._told(self._turned_at - asked)

    def _turn(self) -> None:
        self._turned_at = time.monotonic()  # here, for the watching thread may have to wait until it goes on
        self._turned.set()

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # the only way to another thread's stack
        if frame is not None:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
            log.warning("loop.blocked", plugin=self._plugin(frame), at=where)

    def _plugin(self, frame: FrameType | None) -> str | None:
        """Return the innermost plugin on the stack."""
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            for name, plugin in self._plugins.items():
                if module == name or module.startswith(f"{name}."):
                    return plugin
            frame = frame.f_back
        return None
