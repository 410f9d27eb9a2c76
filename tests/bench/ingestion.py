"""Measures an ingestion: documents a second, processor time by part, memory, searches meanwhile, and a kill -9.

    just bench ingestion FILE.jsonl[.gz] [--documents 1500] [--parts load kill search] [--json FILE]

``load`` brings the documents into an embedded PostgreSQL of its own, in this process, and tells the CPU seconds of each
part: reading; cutting, without counting tokens; counting tokens; embedding, that is tokenising, running the model and
pooling; sentences; the rest of this process, which is writing and the event loop; and PostgreSQL's processes, of which
the building of the vectors' index is told by itself. ``kill`` runs the command, kills it with all that it started after
a third and again after two thirds, and compares the store with that of a run that nobody disturbed. ``search`` times
``POST /search`` of a server, idle, and while the command brings the second half of the documents in beside it.

``--documents`` takes so many lines, evenly spaced. Tokenizers are kept to the calling thread, where their time counts.
"""

import argparse
import asyncio
import collections
import gzip
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

from api.ingest import ingest
from api.settings import Settings
from api.storage.embedded import EmbeddedPostgres, attach
from api.storage.vectors import VectorIndex
from api.system import running, warm
from pipeline import passages
from tests.conftest import ServerProcess, clean_environment
from tests.stored import contents, how_many

RESULTS = Path(__file__).parent / "results" / "ingestion.json"
KILLED = 400
"""Documents that are enough for ``kill``."""
IDLE_S = 20.0


class Clock:
    """Adds up the CPU seconds of functions by part; of nested ones the inner's are the inner's alone."""

    def __init__(self):
        self.seconds: collections.Counter[str] = collections.Counter()
        self._inner = threading.local()

    def watch(self, owner, name, part):
        called = getattr(owner, name)

        def timed(*args, **kwargs):
            above, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
            begun = time.thread_time()
            try:
                return called(*args, **kwargs)
            finally:
                took = time.thread_time() - begun
                self.seconds[part] += took - self._inner.seconds
                self._inner.seconds = above + took

        setattr(owner, name, timed)


class Memory(threading.Thread):
    """Looks once a second at the memory of PostgreSQL's processes, what they share counted once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0
        self._ended = threading.Event()

    def run(self):
        while not self._ended.wait(1.0):
            self.peak = max(self.peak, sum(_pss(process) for process in postgres()))

    def end(self):
        self._ended.set()
        self.join()
        return round(self.peak / 1e6)


def _pss(process):
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def postgres():
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "postgres" in _name(child)]


def _name(process):
    try:
        return process.name()
    except psutil.Error:
        return ""


def postgres_cpu_s():
    """Return the CPU seconds of PostgreSQL's processes, those that have ended included."""
    total = 0.0
    for process in postgres():
        try:
            times, is_first = process.cpu_times(), process.ppid() == os.getpid()
        except psutil.Error:
            continue
        total += times.user + times.system + (times.children_user + times.children_system if is_first else 0)
    return total


def watched(system, clock):
    """Have the parts of an ingestion timed; the embedder is to be ``minilm``."""
    embedder = system.host.embedder
    clock.watch(embedder, "count_tokens", "counting")
    clock.watch(embedder._ready(), "embed_parts", "embedding")
    clock.watch(ingest, "_batch", "reading")
    clock.watch(ingest, "chunk", "cutting")
    clock.watch(passages, "sentences", "sentences")


def index_watched(took):
    """Have the building of the vectors' index timed."""
    make = VectorIndex._make

    async def timed(self):
        begun, cpu_s = time.monotonic(), postgres_cpu_s()
        await make(self)
        took.update(wall_s=round(time.monotonic() - begun, 1), cpu_s=round(postgres_cpu_s() - cpu_s, 1))

    VectorIndex._make = timed  # type: ignore[method-assign]  # to watch it


async def load(path, folder):
    """Ingest in this process and return the figures."""
    clock, memory, count = Clock(), Memory(), 0
    index: dict[str, float] = {}
    index_watched(index)
    async with running(Settings(data_dir=folder, sample=False, database_url=None)) as system:
        await warm(system.host.embedder)
        watched(system, clock)
        memory.start()
        begun, own, beside = time.monotonic(), time.process_time(), postgres_cpu_s()
        async for results in ingest.ingest(system, [path]):
            count += sum(result.status == "stored" for result in results)
        wall_s, own, beside = time.monotonic() - begun, time.process_time() - own, postgres_cpu_s() - beside
        held = await contents(system.engine.url.render_as_string(hide_password=False))
    rest = own - sum(clock.seconds.values())
    parts = {**clock.seconds, "rest": rest, "postgres": beside - index.get("cpu_s", 0), "index": index.get("cpu_s", 0)}
    return {
        "documents": count,
        "chunks": held["chunk"][0],
        "wall_s": round(wall_s, 1),
        "documents_per_s": round(count / wall_s, 1),
        "chunks_per_s": round(held["chunk"][0] / wall_s, 1),
        "cpu_s": {part: round(seconds, 2) for part, seconds in parts.items()},
        "share_without_embedding": round(1 - parts["embedding"] / (own + beside), 3),
        "index": index,
        "peak_mb": {
            "process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
            "postgres": memory.end(),
        },
    }


def command(path, folder):
    environment = clean_environment(data_dir=folder, sample="false")
    arguments = [sys.executable, "-m", "api.cli", "ingest", str(path)]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)


def killed_at(path, folder, documents):
    """Run the command until so many documents are stored, then kill it."""
    process = command(path, folder)
    while process.poll() is None and stored(folder) < documents:
        time.sleep(0.1)
    process.kill()
    process.wait()


def stored(folder):
    """Return how many documents are stored, 0 while the server starts."""
    url = attach(folder) if folder.exists() else None
    return asyncio.run(how_many(url)) if url else 0


def kill(path, folder, count):
    """Return whether a store is the same after two kills as without any."""
    held = []
    for name, deaths in (("undisturbed", ()), ("killed", (count // 3, 2 * count // 3))):
        for documents in deaths:
            killed_at(path, folder / name, documents)
        code = command(path, folder / name).wait()
        with EmbeddedPostgres(folder / name) as url:
            held.append({**asyncio.run(contents(url)), "exit code": code})
    return {"documents": count, "kills": 2, "is_the_same": held[0] == held[1]}


def quantiles(took):
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"searches": len(took), "p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1)}


def searched(client, questions, is_over):
    """Search until something is over, with a pause as a reader makes; return the milliseconds of each."""
    took: list[float] = []
    again = itertools.cycle(questions)
    while not is_over():
        begun = time.perf_counter()
        client.post("/search", json={"query": next(again)}).raise_for_status()
        took.append(1000 * (time.perf_counter() - begun))
        time.sleep(0.05)
    return took


def after(seconds):
    """Return what tells whether so much time has passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def search(lines, folder):
    """Time searches of a server, idle and beside an ingestion by another process."""
    halves = [folder / "first.jsonl", folder / "second.jsonl"]
    for place, half in enumerate(halves):
        written(lines[place::2], half)
    command(halves[0], folder / "data").wait()
    server = ServerProcess(folder, clean_environment(data_dir=folder / "data", sample="false")).wait_ready()
    questions = ["What is " + json.loads(line).get("title", "") + "?" for line in lines]
    try:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            searched(client, questions, after(IDLE_S / 4))
            idle = quantiles(searched(client, questions, after(IDLE_S)))
            process = command(halves[1], folder / "data")
            meanwhile = quantiles(searched(client, questions, lambda: process.poll() is not None))
    finally:
        server.stop()
    return {"documents": len(lines) // 2, "idle": idle, "meanwhile": meanwhile}


def lines_of(path):
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.readlines()


def spaced(lines, count):
    """Return so many of the lines, evenly spaced."""
    return [lines[n * len(lines) // count] for n in range(count)]


def written(lines, path):
    path.write_bytes(b"".join(lines))
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--parts", nargs="+", default=["load", "kill", "search"], choices=["load", "kill", "search"])
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    lines = lines_of(arguments.file)
    lines = spaced(lines, min(arguments.documents or len(lines), len(lines)))
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[1]}
    figures = {"machine": machine}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another account where we are root
        if "load" in arguments.parts:
            figures["load"] = asyncio.run(load(written(lines, folder / "all.jsonl"), folder / "load"))
        if "kill" in arguments.parts:
            some = spaced(lines, min(KILLED, len(lines)))
            figures["kill"] = kill(written(some, folder / "some.jsonl"), folder, len(some))
        if "search" in arguments.parts:
            figures["search"] = search(lines, folder)
    print(json.dumps(figures, indent=2))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
