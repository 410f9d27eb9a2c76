"""What tests share: one real PostgreSQL, real server processes on real sockets, and an LLM's far end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import httpx
import pytest
import uvloop

from api.storage.embedded import EmbeddedPostgres
from tests.faulty_llm import FaultyLLM

START_TIMEOUT_S = 90


def refused(report):
    """Turn a skip into a failure where nothing may be skipped."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("STAGECAST_NO_SKIP"):
        report.outcome, report.longrepr = "failed", f"skipped where nothing may be skipped: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    return refused((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector):
    return refused((yield))


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="as often as the README's figures say, instead of a few times")


@pytest.fixture(scope="session")
def times(request):
    """Return how often to do something: the first number in every test run, the second in a soak."""
    return lambda usually, in_a_soak: in_a_soak if request.config.getoption("soak") else usually


def pytest_asyncio_loop_factories(item):
    """Run a test on asyncio's loop, or, where it is marked so, on that of the server as well."""
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return loops if item.get_closest_marker("both_loops") else {"asyncio": asyncio.new_event_loop}


def pytest_configure(config):
    config.addinivalue_line("markers", "both_loops: runs on asyncio's loop and on uvloop")
    config.addinivalue_line("markers", "as_root: about what only root does; not among the tests of other accounts")


def pytest_collection_modifyitems(config, items):
    if os.geteuid() != 0:
        left_out = [item for item in items if item.get_closest_marker("as_root")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(**settings):
    """Return this process's environment with only the given STAGECAST settings."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("STAGECAST_") and k not in {"LOG_LEVEL", "OPENAI_API_KEY"}
    }
    return kept | {f"STAGECAST_{name.upper()}": str(value) for name, value in settings.items()}


def installed(folder, module, entry_points):
    """Make a module an installed distribution with entry points, in a folder for ``PYTHONPATH``; return the folder."""
    shutil.copy(module, folder)
    metadata = folder / f"{module.stem}-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.stem}\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    return folder


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """Lend the URL of a running embedded PostgreSQL."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def new_database_async(postgres):
    """Return a function that makes an empty database and returns its URL."""

    async def make():
        name = f"t{uuid.uuid4().hex[:12]}"
        connection = await asyncpg.connect(postgres.replace("+asyncpg", ""))
        await connection.execute(f"create database {name}")
        await connection.close()
        return postgres.replace("/stagecast?", f"/{name}?")

    return make


@pytest.fixture(scope="session")
def new_database(new_database_async):
    """Return the same function for tests that are not async."""
    with ThreadPoolExecutor(1) as thread:  # of its own: Playwright has a loop in this one
        yield lambda: thread.submit(asyncio.run, new_database_async()).result()


class ServerProcess:
    """A running ``stagecast serve``, its log, and ways to end it."""

    def __init__(self, folder, environment, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = Path(folder) / f"server-{self.port}.log"
        command = [sys.executable, "-m", "api.cli", "serve", "--port", str(self.port), *arguments]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)

    def wait_ready(self, timeout_s=START_TIMEOUT_S):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log_path.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError("not ready in time:\n" + self.log_path.read_text()[-3000:])

    def log_lines(self):
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout=20)


class Servers:
    """Starts servers, and stops those that only one module needs when it ends: each holds connections and memory."""

    def __init__(self, folders):
        self._folders = folders
        self._kept = []
        self._started = []

    def __call__(self, *arguments, ready=True, keep=False, environment=None, **settings):
        folder = self._folders.mktemp("server")
        settings = {"data_dir": folder / "data"} | settings
        server = ServerProcess(folder, clean_environment(**settings) | (environment or {}), *arguments)
        (self._kept if keep else self._started).append(server)
        return server.wait_ready() if ready else server

    def stop_started(self):
        stop_all(self._started)

    def stop_kept(self):
        stop_all(self._kept)


def stop_all(servers):
    while servers:
        server = servers.pop()
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    made = Servers(tmp_path_factory)
    yield made
    made.stop_kept()


@pytest.fixture(scope="module", autouse=True)
def start_server(servers):
    """Return a function that starts a server with the given settings; it is stopped at the end of the module."""
    yield servers
    servers.stop_started()


@pytest.fixture(scope="session")
def sample_database(new_database):
    """Return the URL of a database that servers fill with the sample collection, once for all tests."""
    return new_database()


@pytest.fixture(scope="session")
def server(servers, sample_database):
    """Lend a server with the sample collection and no LLM: it answers by quoting."""
    return servers(database_url=sample_database, keep=True)


@pytest.fixture(scope="session")
def llm():
    """Lend the far end of an LLM."""
    with FaultyLLM() as far_end:
        yield far_end


@pytest.fixture(scope="session")
def llm_server(servers, sample_database, server, llm):
    """Lend a server whose LLM is the far end; the collection is the one of ``server``."""
    return servers(database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url, keep=True)


@pytest.fixture(scope="session")
def sdk_server(servers, sample_database, server, llm):
    """Lend the same with the far end read by LiteLLM's SDK, as it is for providers with protocols of their own."""
    settings = {"llm_model": "openai/fake", "llm_api_base": llm.url, "llm_client": "litellm"}
    return servers(database_url=sample_database, keep=True, **settings)


@pytest.fixture(scope="session", params=["llm_server", "sdk_server"])
def either_server(request):
    """Lend a server for each way in which an LLM is read."""
    return request.getfixturevalue(request.param)


def read_events(response):
    """Return the events of an SSE response, checking ids, fields and the one terminal event on the way."""
    events = []
    for block in response.read().decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if not fields:
            continue
        assert set(fields) == {"id", "data"}
        event = json.loads(fields["data"])
        assert list(event) == ["type", "content", "timestamp"]
        events.append(event)
        assert int(fields["id"]) == len(events)
    terminal = [event["type"] for event in events if event["type"] in {"done", "error", "cancelled"}]
    assert len(terminal) == 1
    assert events[-1]["type"] == terminal[0]
    return events


def ask(server, message, headers=None, **body):
    """Ask a question and return the events."""
    body = {"message": message, **body}
    with httpx.stream("POST", f"{server.url}/chat", json=body, headers=headers, timeout=30) as response:
        assert response.status_code == 200, response.read()
        return read_events(response)


def answer_of(events):
    return "".join(event["content"] for event in events if event["type"] == "token")


def first(events, kind):
    return next(event["content"] for event in events if event["type"] == kind)
