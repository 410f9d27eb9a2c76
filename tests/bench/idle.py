"""A server that does nothing yet: how long it takes to be ready, how much of that is imports, and its memory."""

import contextlib
import re
import statistics
import time

from tests.bench.contenders import START_S, Upstream, stagecast
from tests.bench.metering import memory_mb

IMPORT = re.compile(r"^import time: +(\d+) \| +\d+ \| ", re.MULTILINE)


@contextlib.contextmanager
def started(folder, upstream_url, **how):
    """Lend a server that is ready, with the seconds from its start to ``/health/ready``."""
    begun = time.monotonic()
    server = stagecast(folder, upstream_url, **how)
    try:
        server.wait_ready(START_S)
        yield server, time.monotonic() - begun
    finally:
        server.stop()


def measure(folder, upstream_url, starts):
    """Return the figures of a server that has its collection already, and of its very first start."""
    with started(folder, upstream_url) as (_, first_s):
        pass
    seconds, memory = [], []
    for _ in range(starts):
        with started(folder, upstream_url) as (server, ready_s):
            seconds.append(ready_s)
            memory.append(memory_mb(server.process.pid))
    return {
        "first_ready_s": first_s,
        "ready_s": statistics.median(seconds),
        "imports_s": imports_s(folder, upstream_url),
        "rss_mb": statistics.median(own for own, _ in memory),
        "database_mb": statistics.median(database for _, database in memory),
        "starts": starts,
    }


def imports_s(folder, upstream_url):
    """Return the time inside imports, by all threads, of a start that notes it (which slows it a little)."""
    with started(folder, upstream_url, importtime=True) as (server, _):
        pass
    return sum(map(int, IMPORT.findall(server.log_path.read_text()))) / 1e6


def experiment(folder, *, starts, with_llm=True):
    """Return the figures without an LLM, where answers are quotes, and with ``LLM_MODEL`` set."""
    upstream = Upstream()
    try:
        kinds = {"extractive": ""} | ({"llm": upstream.url} if with_llm else {})
        figures = {}
        for kind, url in kinds.items():
            print(f"idle server: {kind}", flush=True)
            figures[kind] = measure(folder / f"idle-{kind}", url, starts)
    finally:
        upstream.stop()
    return figures
