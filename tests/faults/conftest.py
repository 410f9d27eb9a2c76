"""What tests of faults share: a server with a stage that makes trouble on demand, and what is open in its process."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tests.conftest import installed
from tests.faults.invariants import check_every_run, check_nothing_left
from tests.faults.postgres import until

ENTRY_POINTS = "[stagecast.stages]\ntrouble = stagecast_trouble:Trouble\n"
STAGES = "trouble,retrieval,reranking,generation"


@pytest.fixture(scope="session")
def trouble_site(tmp_path_factory):
    """Lend a folder with the troublesome stage as an installed distribution."""
    return installed(tmp_path_factory.mktemp("site"), Path(__file__).parent / "stagecast_trouble.py", ENTRY_POINTS)


@pytest.fixture(scope="session")
def start_troubled(servers, trouble_site, llm, tmp_path_factory):
    """Return a function that starts a server with the troublesome stage before the others and a far end of an LLM."""

    def start(*arguments, **settings):
        probe = tmp_path_factory.mktemp("p") / "probe"
        settings = {"stages": STAGES, "llm_model": "openai/fake", "llm_api_base": llm.url} | settings
        settings = {name: value for name, value in settings.items() if value is not None}
        environment = {"PYTHONPATH": str(trouble_site), "TROUBLE_PROBE": str(probe)}
        server = servers(*arguments, environment=environment, **settings)
        server.probe = probe
        return server

    return start


@pytest.fixture(scope="session")
def troubled(start_troubled, sample_database, server):
    """Lend such a server with the sample collection."""
    return start_troubled(database_url=sample_database, keep=True)


@pytest.fixture(autouse=True)
async def everything_holds(request, llm):
    """After every test on the shared server: what must hold of all runs there are, and of the far end's connections."""
    yield
    if "troubled" in request.fixturenames:
        database = request.getfixturevalue("sample_database")
        await check_nothing_left(database)
        await check_every_run(database)

        async def all_closed():
            return llm.open == 0

        await until(all_closed, 15)


async def opened(server):
    """Return what is open in the server's process."""
    reader, writer = await asyncio.open_unix_connection(str(server.probe))
    told = json.loads(await reader.read())
    writer.close()
    return told


async def settled(server, before, timeout_s=15):
    """Wait until nothing more is open than before; return what is, and how long that took."""
    begun = time.monotonic()
    while True:
        now = await opened(server)
        if all(now[kind] <= before[kind] for kind in ("tasks", "fds", "checked_out")):
            return now, time.monotonic() - begun
        assert time.monotonic() < begun + timeout_s, f"before: {before}\nnow: {now}"
        await asyncio.sleep(0.02)
