"""One PostgreSQL server on a cluster that is made: started, and started again, at the same address."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from api.storage import cluster, locks, sockets
from api.storage.accounts import Account
from api.storage.child import Child
from pipeline.errors import ConfigurationError

DATABASE = "stagecast"
SETTINGS = {
    "listen_addresses": "",
    "port": str(sockets.PORT),
    "max_connections": "50",
    "shared_buffers": "128MB",
    "fsync": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "client_connection_check_interval": "500ms",
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "log_min_messages": "warning",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
LOG_BYTES = 10_000_000
LOW_SPACE_BYTES = 64_000_000
FORMER_SERVER_S = 15.0
READY_S = 180.0
"""A server that was killed replays up to ``max_wal_size`` first."""


class DataFolderInUse(ConfigurationError):
    """Another process runs its server in this folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by {holder}: stop that server, or set STAGECAST_DATA_DIR to another folder"
        )


class DatabaseFailed(ConfigurationError):
    """PostgreSQL ended, or did not answer, while it was being started."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"the embedded PostgreSQL in {folder} {problem}\nIts log is {folder / 'postgres.log'}")


class Postmaster:
    """Starts PostgreSQL on the cluster in ``folder``, its socket in ``socket_folder``; one at a time."""

    def __init__(self, folder: Path, programs: Path, account: Account | None, socket_folder: Path) -> None:
        self._folder = folder
        self._cluster = folder / "cluster"
        self._programs = programs
        self._account = account
        self._socket_folder = socket_folder
        self._log = folder / "postgres.log"
        self._written = 0

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the server's database."""
        return sockets.url(self._socket_folder, DATABASE)

    def spawn(self) -> Child:
        """Start the server, once all processes of a former one have ended, and do not wait until it is ready.

        Raises:
            DataFolderInUse: A former server's processes do not end.
        """
        with former_server_gone(self._folder) as lock, _open_log(self._log) as log:
            # What a killed server left there would pass for a live one's if its pid is somebody's by now.
            sockets.clear(self._socket_folder)
            self._written = log.tell()
            return Child(self._command(), self._account, log=log, lock=lock)

    def await_ready(self, child: Child) -> None:
        """Wait until the server takes questions; on the first time, make its database.

        Raises:
            DatabaseFailed: It ended, or did not get ready; the message has the end of its log.
        """
        deadline = time.monotonic() + READY_S
        pause_s = locks.POLL_S
        while (state := self._state()) not in (sockets.READY, sockets.NO_SUCH_DATABASE):
            if not child.alive:
                raise DatabaseFailed(self._folder, f"ended while it started: {self._complaint()}")
            if time.monotonic() > deadline:
                raise DatabaseFailed(self._folder, f"was not ready after {READY_S:.0f} s: {self._complaint()}")
            time.sleep(pause_s)
            # Each refusal is a line in the log, and a recovery can take minutes.
            pause_s = min(pause_s * 1.1, 0.5)
        if state == sockets.NO_SUCH_DATABASE:
            create = f"create database {DATABASE}"
            state = sockets.state(self._socket_folder, "postgres", create, timeout_s=READY_S)
        if state != sockets.READY:
            raise DatabaseFailed(self._folder, f"could not make its database: {self._complaint()}")

    def kill_orphans(self) -> None:
        """End the processes that a dead server has left, which may be busy for minutes before they notice."""
        cluster.kill_processes(self._cluster, self._programs / "postgres")

    def _state(self) -> str | None:
        return sockets.state(self._socket_folder, DATABASE)

    def _command(self) -> list[str]:
        settings = SETTINGS | {"unix_socket_directories": str(self._socket_folder)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self._cluster), *options]

    def _complaint(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._written)
            lines = last_lines(log.read().decode(errors="replace"))
        free = shutil.disk_usage(self._folder).free
        return f"{lines} (the disk has {free // 1_000_000} MB left)" if free < LOW_SPACE_BYTES else lines


@contextmanager
def former_server_gone(folder: Path) -> Iterator[int]:
    """Lend the lock that the processes of a server inherit, once those of a former one have ended.

    Raises:
        DataFolderInUse: They do not end.
    """
    path, made = folder / "server.lock", folder / "cluster"
    if locks.is_held(path):
        # On Linux the kernel did so when its owner died; elsewhere it would live on.
        cluster.stop_server(made)
    with ExitStack() as lock:
        try:
            descriptor = lock.enter_context(locks.held(path, wait_s=FORMER_SERVER_S))
        except BlockingIOError as error:
            raise DataFolderInUse(folder, "a former PostgreSQL server that does not end") from error
        cluster.forget_recycled_pid(made)
        yield descriptor


def last_lines(output: str) -> str:
    """Return the end of what a program wrote."""
    return "\n".join(output.strip().splitlines()[-5:]) or "it wrote nothing"


def _open_log(path: Path) -> IO[bytes]:
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    if log.tell() > LOG_BYTES:
        log.seek(0)
        log.truncate()
    return log
