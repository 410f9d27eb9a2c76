"""What tests of faults share: a server with a stage that makes trouble on demand, and what is open in its process."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import asyncpg
import pytest

ENTRY_POINTS = "[stagecast.stages]\ntrouble = stagecast_trouble:Trouble\n"
STAGES = "trouble,retrieval,reranking,generation"


@pytest.fixture(scope="session")
def trouble_site(tmp_path_factory):
    """Lend a folder with the troublesome stage as an installed distribution."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).parent / "stagecast_trouble.py", site)
    metadata = site / "stagecast_trouble-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stagecast-trouble\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


@pytest.fixture(scope="session")
def start_troubled(start_server, trouble_site, llm, tmp_path_factory):
    """Return a function that starts a server with the troublesome stage before the others and a far end of an LLM."""

    def start(*arguments, **settings):
        probe = tmp_path_factory.mktemp("p") / "probe"
        settings = {"stages": STAGES, "llm_model": "openai/fake", "llm_api_base": llm.url} | settings
        settings = {name: value for name, value in settings.items() if value is not None}
        environment = {"PYTHONPATH": str(trouble_site), "TROUBLE_PROBE": str(probe)}
        server = start_server(*arguments, environment=environment, **settings)
        server.probe = probe
        return server

    return start


@pytest.fixture(scope="session")
def troubled(start_troubled, sample_database, server):
    """Lend such a server with the sample collection."""
    return start_troubled(database_url=sample_database)


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


async def rows(url, query, *arguments):
    """Return what the database answers."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def until(condition, timeout_s=15):
    """Wait until an async condition is true of something, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.01)
    return found
