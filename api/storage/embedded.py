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

from api.storage import accounts, cluster, locks, sockets
from api.storage.accounts import Account
from api.storage.child import run
from api.storage.postmaster import DATABASE, DataFolderInUse, Postmaster, former_server_gone, last_lines
from api.storage.supervisor import Supervisor
from pipeline.errors import ConfigurationError

VERSION = "18"
INITDB = (
    f"--username={sockets.USER} --auth=trust --encoding=UTF8 --locale=C "
    "--locale-provider=builtin --builtin-locale=C.UTF-8 --no-sync --no-instructions"
).split()
CLAIM_S = 0.3
"""Longer than ``attach`` tries the lock for."""
INITDB_S = 180.0
ATTACH_S = 20.0
ATTACH_POLL_S = 0.05


class DataFolderUnusable(ConfigurationError):
    """The folder cannot hold a PostgreSQL cluster of ours."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"cannot keep data in {folder}: {reason}; set STAGECAST_DATA_DIR to another folder")


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
        self._supervisor: Supervisor | None = None
        self._finish: Callable[[], object] = ExitStack().close

    @property
    def alive(self) -> bool:
        """Whether the server process runs; one that died by itself is brought back, at the same URL."""
        return self._supervisor is not None and self._supervisor.alive

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
        postmaster = undo.enter_context(prepared(self._folder))
        self._supervisor = Supervisor(postmaster)
        undo.callback(self._supervisor.stop)
        with _naming(self._folder):
            self._supervisor.start()
        return postmaster.url


@contextmanager
def prepared(folder: Path) -> Iterator[Postmaster]:
    """Claim the folder, make its cluster on the first time, and lend what starts PostgreSQL on it.

    Raises:
        DataFolderInUse, DataFolderUnusable, ConfigurationError: See :meth:`EmbeddedPostgres.start`.
    """
    with ExitStack() as claim:
        with _naming(folder):
            _create(folder)
            claim.enter_context(_claimed(folder))
            account = _account(folder / "cluster", folder)
            with former_server_gone(folder) as lock:
                programs = accounts.runnable(account, folder)
                _make_cluster(folder, programs, account, lock)
            socket_folder = claim.enter_context(sockets.private_folder(folder / "socket", account))
        yield Postmaster(folder, programs, account, socket_folder)


def _make_cluster(folder: Path, programs: Path, account: Account | None, lock: int) -> None:
    made, new = folder / "cluster", folder / "cluster.new"
    if made.exists() and any(made.iterdir()):
        _check_version(folder, cluster.version(made))
        return
    if new.exists():
        shutil.rmtree(new)
    new.mkdir()
    accounts.own(new, account)
    _initdb(folder, [str(programs / "initdb"), *INITDB, f"--pgdata={new}"], account, lock)
    new.rename(made)


def _initdb(folder: Path, command: list[str], account: Account | None, lock: int) -> None:
    try:
        code, output = run(command, account, lock=lock, timeout_s=INITDB_S)
    except subprocess.TimeoutExpired as error:
        raise DataFolderUnusable(folder, f"initdb took longer than {INITDB_S:.0f} s") from error
    if code:
        raise DataFolderUnusable(folder, f"initdb failed: {last_lines(output)}")


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


def _check_version(folder: Path, made_by: str | None) -> None:
    if made_by is None:
        raise DataFolderUnusable(folder, "its folder cluster is not empty, and has no PostgreSQL cluster")
    if made_by != VERSION:
        raise DataFolderUnusable(folder, f"its cluster is of PostgreSQL {made_by}, and this is PostgreSQL {VERSION}")
