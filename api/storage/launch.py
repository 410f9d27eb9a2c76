"""Become another program that ends when the process which started it ends, however that ends.

Run as a script, with nothing but the standard library::

    python -I -S launch.py PARENT UID GID PROGRAM [ARGUMENT...]

``PARENT`` is the pid of the starter; ``UID`` and ``GID`` are ``-`` to stay who we are, ``+`` to be root's other name:
an ordinary account inside a user namespace, whose files outside are root's. It is a process of its own
because the code that runs between fork and exec in a process with threads (``preexec_fn``) may deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x1000_0000
NOBODY = 65534


def main(parent: str, uid: str, gid: str, program: str, *arguments: str) -> None:
    """Drop the privileges, tie our life to the parent's, and become ``program``."""
    _restore_signals()
    if uid == "+":
        _enter_namespace()
    elif uid != "-":
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


def _enter_namespace() -> None:
    owner, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
        sys.exit("this process may not make a user namespace")
    # The kernel takes a map of groups from those only who have given up setgroups.
    for name, line in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {owner} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as entry:  # noqa: PTH123 - pathlib would be the only import of its weight
            entry.write(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
