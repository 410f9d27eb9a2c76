"""Brings the embedded PostgreSQL back when it dies by itself: killed, out of memory, crashed."""

from __future__ import annotations

import threading
import time

import structlog

from api.storage.child import Child
from api.storage.postmaster import Postmaster
from pipeline.errors import ConfigurationError

log = structlog.get_logger()

PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0)
"""Before each attempt; after the last the server is given up."""
STEADY_S = 60.0
"""A server that has lived for so long is not part of a series of failures."""


class Supervisor:
    """Keeps a server running from ``start`` to ``stop``, its address the same.

    A server that was told to shut down, whoever told it, stays down: only one that died is brought back.
    """

    def __init__(self, postmaster: Postmaster) -> None:
        self._postmaster = postmaster
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._child: Child | None = None
        self._thread = threading.Thread(target=self._watch, name="embedded-postgres-watch", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._child is not None and self._child.alive

    def start(self) -> None:
        """Start the server, wait until it is ready, and look after it from now on.

        Raises:
            DatabaseFailed, DataFolderInUse: See :class:`~api.storage.postmaster.Postmaster`.
        """
        self._child = self._postmaster.spawn()
        self._postmaster.await_ready(self._child)
        self._thread.start()

    def stop(self) -> None:
        """Shut the server down, also one that is just being brought back."""
        self._stopping.set()
        with self._changing:
            if self._child:
                self._child.stop()
                self._postmaster.kill_orphans()
        # The garbage collection that ends a server may run in any thread.
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        failures, came_up = 0, True
        while failures < len(PAUSES_S):
            assert self._child
            since = time.monotonic()
            code = self._child.wait()
            if self._stopping.is_set():
                return
            if code == 0 and came_up:
                log.error("postgres.shut_down", remedy="somebody else told it to; restart this server to have it back")
                return
            failures = 0 if time.monotonic() - since > STEADY_S else failures
            log.error("postgres.died", exit_code=code, failures=failures)
            if self._stopping.wait(PAUSES_S[failures]):
                return
            came_up = self._bring_back()
            failures += 1
        log.critical("postgres.given_up", attempts=failures, remedy="see postgres.log, then restart this server")

    def _bring_back(self) -> bool:
        """Start the server anew; return whether it took questions."""
        begun = time.monotonic()
        try:
            self._postmaster.kill_orphans()
            child = self._postmaster.spawn()
            with self._changing:
                self._child = child
                if self._stopping.is_set():
                    child.stop()
                    return False
            self._await_ready(child)
        except (OSError, RuntimeError, ConfigurationError) as problem:
            if not self._stopping.is_set():
                log.error("postgres.not_back", error=str(problem))  # noqa: TRY400  # the message says it all
        else:
            log.warning("postgres.back", seconds=round(time.monotonic() - begun, 2))
            return True
        return False

    def _await_ready(self, child: Child) -> None:
        try:
            self._postmaster.await_ready(child)
        except BaseException:
            child.stop()
            raise
