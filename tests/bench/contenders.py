"""The servers of the comparison: what they are, how they are started, and the upstream that all of them read."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec
import psutil

from tests.bench import load, metering
from tests.bench.servers import fixed_passage
from tests.conftest import ServerProcess, clean_environment, free_port, installed

ROOT = Path(__file__).parents[2]
START_S = 300.0
"""A start that fails ends at once; one on a busy core, with LiteLLM to import, only takes long."""
TOPIC = "aripiprazole"
"""What the sample collection answers; without it Stagecast would not ask its LLM."""
NO_DOWNLOAD = {"HTTPS_PROXY": "http://127.0.0.1:9"}
"""The reranker in force is the one that every machine has, whatever this one can reach: nothing listens there."""
FIXED = "[stagecast.retrievers]\nfixed = fixed_passage:FixedPassage\n"


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A server of the comparison; ``module`` is one of ``tests.bench.servers``, empty for Stagecast itself."""

    what: str
    module: str = ""
    flags: tuple[str, ...] = ()
    needs: str = ""
    """A package of the dependency group ``bench``."""
    settings: dict[str, str] = {}

    @property
    def missing(self):
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


CONTENDERS = {
    "stagecast": Contender(what="this server: search, sessions and storing included"),
    "stagecast_no_search": Contender(
        what="this server with a retriever that always finds the same passage",
        settings={"retriever": "fixed", "stages": "retrieval,generation", "sample": "false"},
    ),
    "stagecast_flush": Contender(what="this server with `FLUSH_MS=25`", settings={"flush_ms": "25"}),
    "no_asgi": Contender(what="asyncio protocol on uvloop, no ASGI: the floor", module="no_asgi"),
    "asgi_raw": Contender(what="ASGI on uvicorn, own upstream reader, a send a token", module="asgi_raw"),
    "asgi_raw_batched": Contender(
        what="the same, a send for all tokens that are ready", module="asgi_raw", flags=("--batched",)
    ),
    "litestar_sse": Contender(what="Litestar `ServerSentEvent`, upstream by aiohttp", module="litestar_sse"),
    "fastapi_streaming": Contender(
        what="FastAPI `StreamingResponse`, upstream by aiohttp", module="fastapi_streaming", needs="fastapi"
    ),
    "sse_starlette": Contender(
        what="FastAPI and sse-starlette, upstream by aiohttp", module="sse_starlette_response", needs="sse_starlette"
    ),
    "litellm_sdk": Contender(what="ASGI on uvicorn, upstream by the LiteLLM SDK", module="litellm_sdk"),
}


class Upstream:
    """The process at the far end."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.bench.upstream"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout
        port = self.process.stdout.readline().removeprefix("ready ").strip()
        assert port, "the upstream did not start"
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"
        self.target = load.Target(url=self.root, pid=self.process.pid, openai=True)

    def stats(self):
        with urllib.request.urlopen(f"{self.root}/stats", timeout=5) as response:
            return json.load(response)

    def falls_silent(self, patience_s=20):
        """Say whether no answer is open in time; one left open would spoil the next server's figures."""
        deadline = time.monotonic() + patience_s
        while self.stats()["open"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def stop(self):
        stop(self.process)
        assert self.process.stdout
        self.process.stdout.close()


class Peer:
    """A running server that is not Stagecast."""

    def __init__(self, contender, upstream_url, log_path):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        module = f"tests.bench.servers.{contender.module}"
        command = [sys.executable, "-m", module, "--port", str(port), "--upstream", upstream_url, *contender.flags]
        self._log_path = log_path
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self._port = port

    def wait_ready(self, timeout_s=START_S):
        deadline = time.monotonic() + timeout_s
        while not self._listens():
            alive = self.process.poll() is None and time.monotonic() < deadline
            assert alive, f"not ready in time:\n{self._log_path.read_text()[-3000:]}"
            time.sleep(0.05)
        return self

    def _listens(self):
        found = psutil.Process(self.process.pid).net_connections("tcp")
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == self._port for c in found)

    def stop(self):
        stop(self.process)


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stagecast(folder, upstream_url, *, importtime=False, **settings):
    """Start this server with a collection of its own in ``folder``; it is not ready yet.

    Without an upstream it answers by quoting. With ``importtime`` its log tells how long each import takes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "site"
    if not site.exists():
        site.mkdir()
        installed(site, Path(fixed_passage.__file__), FIXED)
    llm = {"llm_model": "openai/bench", "llm_api_base": upstream_url} if upstream_url else {}
    environment = clean_environment(data_dir=folder / "data", **llm, **settings)
    noted = {"PYTHONPROFILEIMPORTTIME": "1"} if importtime else {}
    return ServerProcess(folder, environment | NO_DOWNLOAD | {"PYTHONPATH": str(site)} | noted)


class Rig:
    """The upstream and the contenders, running: each of these on the first core, all else on the last.

    ``skipped`` holds the names of contenders whose packages are not installed.
    """

    def __init__(self, folder, names):
        self._folder = folder
        self.names = [name for name in names if not CONTENDERS[name].missing]
        self.skipped = [name for name in names if CONTENDERS[name].missing]
        self.server_core, self.load_core = metering.cores()
        self.servers = {}

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(metering.pinned(self.load_core))
            self.upstream = Upstream()
            stack.callback(self.upstream.stop)
            with metering.pinned(self.server_core):
                for name in self.names:
                    print(f"starting {name}", flush=True)
                    stack.callback(self._stop, name)
                    self.servers[name] = self._start(name)
                    self.servers[name].wait_ready(START_S)  # one after the other: they share a core
            self._leave = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._leave.close()

    def await_silence(self, name):
        """Return when no answer is open upstream; a server that has left some open is started anew."""
        if self.upstream.falls_silent():
            return
        print(f"  {name} left {self.upstream.stats()['open']} answers open: started anew", flush=True)
        self._stop(name)
        with metering.pinned(self.server_core):
            self.servers[name] = self._start(name)
            self.servers[name].wait_ready(START_S)
        assert self.upstream.falls_silent()

    def _stop(self, name):
        if name in self.servers:
            self.servers[name].stop()

    def _start(self, name):
        contender = CONTENDERS[name]
        if contender.module:
            return Peer(contender, self.upstream.url, self._folder / f"{name}.log")
        return stagecast(self._folder / name, self.upstream.url, **contender.settings)

    def target(self, name):
        server = self.servers[name]
        return load.Target(url=server.url, pid=server.process.pid, topic="" if CONTENDERS[name].module else TOPIC)
