"""What a PostgreSQL cluster's folder says of its version and of the server that runs, or ran, on it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def version(cluster: Path) -> str | None:
    """Return the major version that made the cluster, None if the folder has no cluster."""
    with suppress(FileNotFoundError):
        return (cluster / "PG_VERSION").read_text().strip()
    return None


def stop_server(cluster: Path) -> None:
    """Tell the server that runs on the cluster to shut down, without waiting for its end.

    To be called only when some process of that server is known to live: its pid may be another program's else.
    """
    with suppress(OSError, ValueError):
        os.kill(_server_pid(cluster), signal.SIGINT)


def kill_processes(cluster: Path, program: Path) -> None:
    """Kill every process of ``program`` that works in the cluster's folder, as all of a server's do; on Linux only."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").samefile(cluster) and (entry / "exe").samefile(program):
                os.kill(int(entry.name), signal.SIGKILL)


def forget_recycled_pid(cluster: Path) -> None:
    """Remove a dead server's pid file if its pid is now another program's, which PostgreSQL would take for a server.

    Usual in containers, where pids repeat. A live server, started by hand say, works in its cluster's folder.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            if not Path(f"/proc/{_server_pid(cluster)}/cwd").samefile(cluster):
                (cluster / "postmaster.pid").unlink()


def _server_pid(cluster: Path) -> int:
    pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    if pid <= 1:
        raise ValueError(pid)
    return pid
