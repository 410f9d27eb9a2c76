"""An embedded PostgreSQL 18 with pgvector: a child process that ends when ours does, even by ``kill -9``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from api.storage import accounts, cluster, locks, sockets
from api.storage.accounts import Account
from api.storage.child import Child, run
from pipeline.errors import ConfigurationError

VERSION = "18"
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
}
INITDB = (
    f"--username={sockets.USER} --auth=trust --encoding=UTF8 --locale=C "
    "--locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync --no-instructions"
).split()
LOG_BYTES = 10_000_000
LOW_SPACE_BYTES = 64_000_000
CLAIM_S = 0.3
"""Longer than ``attach`` tries the lock for."""
FORMER_SERVER_S = 15.0
INITDB_S = 180.0
READY_S = 180.0
"""A server that was killed replays up to ``max_wal_size`` first."""
ATTACH_S = 20.0
ATTACH_POLL_S = 0.05


class DataFolderInUse(ConfigurationError):
    """Another process runs its server in this folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by {holder}: stop that server, or set STAGECAST_DATA_DIR to another folder"
        )


class DataFolderUnusable(ConfigurationError):
    """The folder cannot hold a PostgreSQL cluster of ours."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"cannot keep data in {folder}: {reason}; set STAGECAST_DATA_DIR to another folder")


class DatabaseFailed(ConfigurationError):
    """PostgreSQL ended, or did not answer, while it was being started."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"the embedded PostgreSQL in {folder} {problem}\nIts log is {folder / 'postgres.log'}")


def default_folder() -> Path:
    """Return where data is kept unless the settings say otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/stagecast")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "stagecast"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "stagecast"


def attach(folder: Path) -> str | None:
    """Return the URL of the live server that some process of ours runs on ``folder``, None if there is none.

    Blocks while that server is still starting, for at most 20 s; None if it does not answer even then.

    Raises:
        DataFolderUnusable: The folder may not be read.
    """
    folder = folder.expanduser()
    deadline = time.monotonic() + ATTACH_S
    with _naming(folder):
        while locks.is_held(folder / "lock") and time.monotonic() < deadline:
            socket_folder = sockets.noted(folder / "socket")
            if socket_folder and sockets.state(socket_folder, DATABASE) == sockets.READY:
                return sockets.url(socket_folder, DATABASE)
            time.sleep(ATTACH_POLL_S)
    return None


class EmbeddedPostgres:
    """PostgreSQL 18 as a child process of this one, its cluster in ``folder``, on a private Unix socket only.

    It ends with ``stop``, with this object, and with this process, on Linux even if that is killed; what was committed
    survives.
    As root it runs as an unprivileged account, which owns the cluster. One folder, one server.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser().resolve()
        self._cluster = self._folder / "cluster"
        self._log = self._folder / "postgres.log"
        self._child: Child | None = None
        self._finish: Callable[[], object] = ExitStack().close

    @property
    def alive(self) -> bool:
        """Whether the server process runs; when it died by itself, ``stop`` and ``start`` bring it back."""
        return self._child is not None and self._child.alive

    def start(self) -> str:
        """Start the server, on the first time also make its cluster; return its SQLAlchemy URL.

        Blocks, usually for 0.2 s, on the first time for 2 s; longer if a killed server has to recover.

        Raises:
            DataFolderInUse: A server runs on the folder already, this object's own included.
            DataFolderUnusable: The folder cannot be made, written or entered, or holds something else.
            DatabaseFailed: The server ended or did not get ready; the message has the end of its log.
            ConfigurationError: PostgreSQL is not installed, or does not run as who we are.
        """
        with ExitStack() as undo:
            url = self._start(undo)
            # Also when this object is dropped, and when the interpreter exits.
            self._finish = weakref.finalize(self, undo.pop_all().close)
        return url

    def stop(self) -> None:
        """Shut the server down, ending its connections, and let go of the folder; harmless when it does not run."""
        self._finish()

    def __enter__(self) -> str:
        """Start the server and lend its URL."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, undo: ExitStack) -> str:
        folder = self._folder
        with _naming(folder), ExitStack() as until_started:
            _create(folder)
            undo.enter_context(_claimed(folder))
            account = _account(self._cluster, folder)
            lock = until_started.enter_context(_former_server_gone(folder, self._cluster))
            programs = accounts.runnable(account, folder)
            self._make_cluster(programs, account, lock)
            socket_folder = undo.enter_context(sockets.private_folder(folder / "socket", account))
            log = until_started.enter_context(_open_log(self._log))
            written = log.tell()
            self._child = Child(self._command(programs, socket_folder), account, log=log, lock=lock)
            undo.callback(self._child.stop)
        self._await_ready(self._child, socket_folder, written)
        return sockets.url(socket_folder, DATABASE)

    def _make_cluster(self, programs: Path, account: Account | None, lock: int) -> None:
        if self._cluster.exists() and any(self._cluster.iterdir()):
            _check_version(self._folder, cluster.version(self._cluster))
            return
        new = self._folder / "cluster.new"
        if new.exists():
            shutil.rmtree(new)
        new.mkdir()
        accounts.own(new, account)
        self._initdb([str(programs / "initdb"), *INITDB, f"--pgdata={new}"], account, lock)
        new.rename(self._cluster)

    def _initdb(self, command: list[str], account: Account | None, lock: int) -> None:
        try:
            code, output = run(command, account, lock=lock, timeout_s=INITDB_S)
        except subprocess.TimeoutExpired as error:
            raise DataFolderUnusable(self._folder, f"initdb took longer than {INITDB_S:.0f} s") from error
        if code:
            raise DataFolderUnusable(self._folder, f"initdb failed: {_last_lines(output)}")

    def _command(self, programs: Path, socket_folder: Path) -> list[str]:
        settings = SETTINGS | {"unix_socket_directories": str(socket_folder)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(programs / "postgres"), "-D", str(self._cluster), *options]

    def _await_ready(self, child: Child, socket_folder: Path, written: int) -> None:
        deadline = time.monotonic() + READY_S
        pause_s = locks.POLL_S
        while (state := sockets.state(socket_folder, DATABASE)) not in (sockets.READY, sockets.NO_SUCH_DATABASE):
            if not child.alive:
                raise DatabaseFailed(self._folder, f"ended while it started: {self._complaint(written)}")
            if time.monotonic() > deadline:
                raise DatabaseFailed(self._folder, f"was not ready after {READY_S:.0f} s: {self._complaint(written)}")
            time.sleep(pause_s)
            # Each refusal is a line in the log, and a recovery can take minutes.
            pause_s = min(pause_s * 1.1, 0.5)
        if state == sockets.NO_SUCH_DATABASE:
            state = sockets.state(socket_folder, "postgres", f"create database {DATABASE}", timeout_s=READY_S)
        if state != sockets.READY:
            raise DatabaseFailed(self._folder, f"could not make its database: {self._complaint(written)}")

    def _complaint(self, written: int) -> str:
        with self._log.open("rb") as log:
            log.seek(written)
            lines = _last_lines(log.read().decode(errors="replace"))
        free = shutil.disk_usage(self._folder).free
        return f"{lines} (the disk has {free // 1_000_000} MB left)" if free < LOW_SPACE_BYTES else lines


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Make an error that names the folder from what the file system refuses."""
    try:
        yield
    except OSError as error:
        what = f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror or error)
        raise DataFolderUnusable(folder, what) from error


def _create(folder: Path) -> None:
    mode = 0o711 if os.geteuid() == 0 else 0o700
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(exist_ok=True)
        path.chmod(mode)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Be the one who runs a server on the folder; its lock file has our pid."""
    path = folder / "lock"
    with ExitStack() as claim:
        try:
            descriptor = claim.enter_context(locks.held(path, wait_s=CLAIM_S))
        except BlockingIOError as error:
            raise DataFolderInUse(folder, f"process {path.read_text() or '(starting)'}") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield


def _account(made: Path, folder: Path) -> Account | None:
    """Return whom PostgreSQL runs as; None for ourselves, which for root means in a user namespace.

    A namespace is the second choice, for folders that an account of its own cannot enter: there PostgreSQL could read
    what root can. A cluster stays with what it was made by.
    """
    if made.exists() and made.stat().st_uid == os.geteuid():
        return None
    account = accounts.unprivileged(made)
    if account and (barred := accounts.admit(account, folder)):
        if not made.exists() and accounts.in_namespace():
            return None
        raise DataFolderUnusable(
            folder,
            f"PostgreSQL does not run as root, and the account {account.name} that it runs as cannot enter {barred} "
            "(start as an ordinary user, or let everybody enter with chmod o+x)",
        )
    return account


@contextmanager
def _former_server_gone(folder: Path, made: Path) -> Iterator[int]:
    """Lend the lock that the processes of a server inherit, once those of a former one have ended."""
    path = folder / "server.lock"
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


def _check_version(folder: Path, made_by: str | None) -> None:
    if made_by is None:
        raise DataFolderUnusable(folder, "its folder cluster is not empty, and has no PostgreSQL cluster")
    if made_by != VERSION:
        raise DataFolderUnusable(folder, f"its cluster is of PostgreSQL {made_by}, and this is PostgreSQL {VERSION}")


def _open_log(path: Path) -> IO[bytes]:
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    if log.tell() > LOG_BYTES:
        log.seek(0)
        log.truncate()
    return log


def _last_lines(output: str) -> str:
    return "\n".join(output.strip().splitlines()[-5:]) or "it wrote nothing"
