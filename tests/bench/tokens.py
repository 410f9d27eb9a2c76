"""Measures what the server adds to the tokens of an LLM that writes one every 20 ms.

    just bench tokens [--requests 20] [--at-once 1]

Starts a server with a collection of its own and the far end of an LLM in this process; prints what lies between the far
end's writing of a token and its arrival here, and the server's own share of the time to the first token.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.conftest import ServerProcess, clean_environment
from tests.faulty_llm import FaultyLLM

PACE_MS = 20


def one_stream(client, added, shares, errors):
    begun = time.monotonic_ns()
    with client.stream("POST", "/chat", json={"message": "aripiprazole llm:stamped"}) as response:
        first = True
        for line in response.iter_lines():
            if '"type":"token"' in line:
                now = time.monotonic_ns()
                written = int(json.loads(line[6:])["content"])
                added.append((now - written) / 1e6)
                if first:
                    shares.append((now - begun) / 1e6 - PACE_MS)
                    first = False
            elif '"type":"error"' in line:
                errors.append(line)


def quantiles(values):
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.1f}  p95 {cuts[94]:.1f}  p99 {cuts[98]:.1f}  max {max(values):.1f} ms"


def measure(url, requests, at_once):
    added: list[float] = []
    shares: list[float] = []
    errors: list[str] = []
    client = httpx.Client(base_url=url, timeout=60)  # making one takes longer than a first token
    for _ in range(requests // at_once):
        streams = [threading.Thread(target=one_stream, args=(client, added, shares, errors)) for _ in range(at_once)]
        for stream in streams:
            stream.start()
        for stream in streams:
            stream.join()
    print(f"{len(shares)} streams, {at_once} at once, {len(added)} tokens, {len(errors)} errors")
    print(f"added to each token            {quantiles(added)}")
    print(f"own share of the first token   {quantiles(shares)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, FaultyLLM() as llm:
        settings = {"data_dir": Path(folder) / "data", "llm_model": "openai/fake", "llm_api_base": llm.url}
        server = ServerProcess(folder, clean_environment(**settings))
        try:
            measure(server.wait_ready().url, arguments.requests, arguments.at_once)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
