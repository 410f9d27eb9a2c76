"""Programs that never outlive the process which started them, not even by ``kill -9``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import IO

from api.storage.accounts import LAUNCHER, Account

# Of PostgreSQL: fast, then immediate shutdown (which the next start repairs), then force; with seconds to wait.
SHUTDOWNS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def run(command: Sequence[str], account: Account | None, *, lock: int, timeout_s: float) -> tuple[int, str]:
    """Run a program to its end; return its exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``timeout_s`` and was killed.
    """
    with _launch(command, account, lock, subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output.decode(errors="replace")


class Child:
    """A program that runs until it is stopped, or until this process ends. On macOS: until it is stopped.

    It inherits the descriptor ``lock``, and so a flock on it is held until the last of its processes is gone.
    """

    def __init__(self, command: Sequence[str], account: Account | None, *, log: IO[bytes], lock: int) -> None:
        def keep() -> None:
            try:
                process = _launch(command, account, lock, log)
            except BaseException as error:  # noqa: BLE001 - raised by result() in the caller's thread
                started.set_exception(error)
            else:
                started.set_result(process)
                process.wait()

        started: Future[subprocess.Popen[bytes]] = Future()
        # The kernel sends PR_SET_PDEATHSIG when the thread that forked ends, so that thread has to stay.
        self._thread = threading.Thread(target=keep, name="embedded-postgres", daemon=True)
        self._thread.start()
        self._process = started.result()

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._thread.is_alive()

    def wait(self) -> int:
        """Wait for the program's end; return its exit code, or minus the number of the signal that ended it."""
        self._thread.join()
        return self._process.returncode

    def stop(self) -> None:
        """Shut PostgreSQL down and wait for its end; what its clients have not committed is lost."""
        for number, wait_s in SHUTDOWNS:
            if self.alive:
                self._process.send_signal(number)
                self._thread.join(wait_s)


def _launch(
    command: Sequence[str], account: Account | None, lock: int, output: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    stay = "+" if os.geteuid() == 0 else "-"
    identity = (str(account.uid), str(account.gid)) if account else (stay, stay)
    return subprocess.Popen(  # noqa: S603 - our own commands
        [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *identity, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=_environment(),
        pass_fds=(lock,),
        # Ctrl-C is for the application, which still needs its database while it ends.
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    # PostgreSQL would take its port and folder from PG* variables; LC_ALL keeps its messages in English.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}
