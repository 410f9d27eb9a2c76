"""Prints the median CPU time, in ms, of embedding a question as the server does: ``QUESTION TIMES``."""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pipeline.host import Host, Options
from pipeline.threads import Threads
from plugins.minilm import MiniLM


async def costs_ms(question, times):
    with tempfile.TemporaryDirectory() as folder:
        threads = Threads(4)
        embedder = MiniLM(Host(Options(data_dir=Path(folder)), threads, {}))
        await embedder.warm()
        taken = []
        for n in range(times):
            before = time.process_time_ns()
            await embedder.embed([f"{question} {n}"])  # a question that was asked before is not embedded again
            taken.append((time.process_time_ns() - before) / 1e6)
        threads.close()
        return taken


if __name__ == "__main__":
    print(statistics.median(asyncio.run(costs_ms(sys.argv[1], int(sys.argv[2])))))
