"""Become another program that ends when the process which started it ends, however that ends.

Run as a script, with nothing but the standard library::

    python -I -S launch.py PARENT UID GID PROGRAM [ARGUMENT...]

``PARENT`` is the pid of the starter; ``UID`` and ``GID`` are ``-`` to stay who we are. It is a process of its own
because the code that runs between fork and exec in a process with threads (``preexec_fn``) may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, uid: str, gid: str, program: str, *arguments: str) -> None:
    """Drop the privileges, tie our life to the parent's, and become ``program``."""
    _restore_signals()
    if uid != "-":
        _become(int(uid), int(gid))
    if sys.platform == "linux":
        # After the change of account, which would clear it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() == int(parent):
        os.execv(program, [program, *arguments])  # noqa: S606 - the point of this file


def _restore_signals() -> None:
    # Python ignores two of them, a shell's background job SIGINT; programs inherit what is ignored.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    main(*sys.argv[1:])
