"""What a run costs without its tokens: CPU of the server's process, one question at a time, by the parts of a run.

It is the same question each time, whose vector is remembered: embedding is not in the figures, and told beside them.
"""

import json
import re
import socket
import statistics
import subprocess
import sys
import urllib.request
from itertools import pairwise

from tests.bench.contenders import ROOT, TOPIC
from tests.bench.load import END, Script
from tests.bench.metering import CpuMeter, cpu_ns, pinned

ONE_TOKEN = Script(1, 0, 50)
"""The wait for the token keeps what is done for it apart from what is done to ask for it."""
MARKS = re.compile(rb'"type":"(generation_start|token)"|\n(0)\r\n\r\n')
PARTS = ("before_generation", "asking_the_llm", "token_and_end")
"""From the request to ``generation_start``, from there to the token, and from there to the end, storing included."""


def measure(rig, name, runs):
    """Return ``{part: median ms}``, their ``total``, and what the database's processes did per run."""
    target = rig.target(name)
    for _ in range(5):
        run_once(target)
    meter = CpuMeter(target.pid)
    parts = [run_once(target) for _ in range(runs)]
    figures = {
        part: statistics.median(times) / 1e6 for part, times in zip(PARTS, zip(*parts, strict=True), strict=True)
    }
    figures["total"] = statistics.median(map(sum, parts)) / 1e6
    return figures | {"database": meter.children_ns() / 1e6 / runs, "runs": runs}


def run_once(target):
    """Ask one question and return the CPU time, in ns, of each of ``PARTS``."""
    with socket.create_connection(target.address, timeout=30) as connection:
        readings = [cpu_ns(target.pid)]
        connection.sendall(target.request(ONE_TOKEN))
        unread, seen = b"", set[tuple[bytes, bytes]]()
        while len(readings) <= len(PARTS):
            received = connection.recv(65_536)
            assert received, f"closed after {unread[-300:]!r}"
            unread += received
            for mark in set(MARKS.findall(unread)) - seen:
                seen.add(mark)
                readings.append(cpu_ns(target.pid))
    assert unread.endswith(END)
    return [later - before for before, later in pairwise(readings)]


def search_ms(rig, name, times):
    """Return the median CPU time of ``POST /search``."""
    target = rig.target(name)
    body = json.dumps({"query": f"{TOPIC} {ONE_TOKEN}"}).encode()
    asked = urllib.request.Request(f"{target.url}/search", body, {"content-type": "application/json"})
    taken = []
    for _ in range(times):
        before = cpu_ns(target.pid)
        with urllib.request.urlopen(asked, timeout=30) as response:
            response.read()
        taken.append((cpu_ns(target.pid) - before) / 1e6)
    return statistics.median(taken)


def embedding_ms(core, times):
    """Return the median CPU time of embedding one question, in a process on the same core as the servers."""
    command = [sys.executable, "-m", "tests.bench.embedding_cost", f"{TOPIC} {ONE_TOKEN}", str(times)]
    with pinned(core):
        return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout)


def experiment(rig, runs):
    """Return the parts of a run of each Stagecast in the rig, and what a search and an embedding cost by themselves."""
    found = {name: measure(rig, name, runs) for name in rig.names if name.startswith("stagecast")}
    alone = {"embedding": embedding_ms(rig.server_core, runs)}
    if "stagecast" in rig.names:
        alone["search"] = search_ms(rig, "stagecast", runs)
    return {"servers": found, "alone": alone}
