"""What processes cost: CPU time to the nanosecond, memory, and the cores they may use. Linux only."""

import contextlib
import os
import time

import psutil

PROCESS_CPU_CLOCK = 2
"""``CPUCLOCK_SCHED`` of Linux: the time of all threads of a process, ended ones included."""


def cpu_ns(pid):
    """Return the CPU time that a process has used; it costs a microsecond to ask.

    Raises:
        OSError: There is no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | PROCESS_CPU_CLOCK)


def family(pid):
    """Return the ids of a process and of those it started, theirs included."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


class CpuMeter:
    """The CPU time of a server's process, and of its database's processes, since the meter was made."""

    def __init__(self, pid):
        self._pid = pid
        self._before = self._read()

    def server_ns(self):
        return cpu_ns(self._pid) - self._before[self._pid]

    def children_ns(self):
        """Of the processes that live now: what one used that has ended meanwhile is not known."""
        return sum(used - self._before.get(pid, 0) for pid, used in self._read().items() if pid != self._pid)

    def _read(self):
        used = {}
        for pid in family(self._pid):
            with contextlib.suppress(OSError):  # it has just ended
                used[pid] = cpu_ns(pid)
        return used


def memory_mb(pid):
    """Return the resident memory of a process, and the proportional one of its children; shared pages count once."""
    own, *children = (psutil.Process(each) for each in family(pid))
    return own.memory_info().rss / 1e6, sum(child.memory_full_info().pss for child in children) / 1e6


class MachineMeter:
    """How many cores' worth of time the whole machine, and processes of ours, were busy since the meter was made."""

    def __init__(self, *pids):
        self._pids = pids
        self._before = self._read()

    def cores(self):
        """Return ``{"mine": ..., "others": ...}``: of the given processes, and of all else on the machine."""
        wall, busy, mine = (now - then for now, then in zip(self._read(), self._before, strict=True))
        return {"mine": mine / wall, "others": max(0.0, (busy - mine) / wall)}

    def _read(self):
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
        return time.monotonic(), busy, sum(map(cpu_ns, self._pids)) / 1e9


def cores():
    """Return the core for a server under test, and the one for all else; the same if there is but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@contextlib.contextmanager
def pinned(core):
    """Keep this thread, and the processes it starts meanwhile for all their life, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
