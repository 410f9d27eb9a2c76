"""Loads of many documents: what a kill leaves, the vectors' index, searches meanwhile, memory."""

import asyncio
import json
import subprocess
import sys
import time

import asyncpg
import httpx
import pytest

from api.ingest.document import Document
from api.ingest.ingest import AT_ONCE, BATCH, BATCH_CHARS, _batch, ingest_items
from api.ingest.writer import writer
from api.settings import Settings
from api.storage import database, migrate, vectors
from api.storage.documents import Documents
from api.storage.tables import VECTOR_INDEX
from api.system import running
from pipeline.fakes import FakeEmbedder
from tests.conftest import clean_environment
from tests.stored import contents, how_many

MANY = 1_500
"""Documents of a chunk each: enough for the index to be left out."""
INDEX = f"select indisvalid, indexrelid from pg_index where indexrelid = to_regclass('{VECTOR_INDEX}')"


def written(folder, count, first=0):
    """Write JSON lines of short documents and return the file."""
    lines = folder / f"from-{first}.jsonl"
    places = range(first, first + count)
    texts = ({"id": f"d{n}", "title": f"Animal {n}", "text": f"It has {n % 7} stripes."} for n in places)
    lines.write_text("".join(json.dumps(text) + "\n" for text in texts))
    return lines


def ingesting(lines, url, folder, **settings):
    environment = clean_environment(database_url=url, data_dir=folder / "data", sample="false", **settings)
    command = [sys.executable, "-m", "api.cli", "ingest", str(lines)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def ingested(lines, url, folder, **settings):
    """Run the command and return its last line: how many were stored, unchanged, failed."""
    process = ingesting(lines, url, folder, **settings)
    _, printed = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    return printed.strip().splitlines()[-1]


def run(url, query, method="fetchrow"):
    """Run one statement, outside a transaction."""

    async def ask():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await getattr(connection, method)(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def killed_after(documents, lines, url, folder, **settings):
    process = ingesting(lines, url, folder, **settings)
    deadline = time.monotonic() + 60
    while asyncio.run(how_many(url)) < documents and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=10)


@pytest.fixture(scope="module")
def loaded(new_database, tmp_path_factory):
    """Lend the URL of a database with many documents, loaded without a disturbance, and their file."""
    folder, url = tmp_path_factory.mktemp("loaded"), new_database()
    lines = written(folder, MANY)
    assert ingested(lines, url, folder) == f"{MANY} stored, 0 unchanged, 0 failed"
    return url, lines


def test_the_index_is_there_when_all_is_loaded(loaded):
    url, _ = loaded
    assert run(url, INDEX)["indisvalid"] is True


def test_searches_are_planned_for_what_was_loaded(loaded):
    url, _ = loaded
    known = run(url, "select count(*) from pg_stat_user_tables where analyze_count > 0 and n_live_tup > 1000")
    assert known["count"] >= len({"document", "chunk", "posting"})


def test_searches_are_planned_for_a_small_load_too(new_database, tmp_path):
    url = new_database()
    ingested(written(tmp_path, 3), url, tmp_path)
    tables = ", ".join(f"'{table}'" for table in vectors.ANALYZED.split(", "))
    known = run(url, f"select min(reltuples) as rows from pg_class where relname in ({tables})")  # -1: never looked at
    assert known["rows"] > 0


def test_a_load_that_is_killed_and_begun_again_ends_as_one_that_nobody_disturbed(loaded, new_database, tmp_path):
    undisturbed, lines = loaded
    url = new_database()
    killed_after(1, lines, url, tmp_path)
    killed_after(vectors.LEAST + 2 * BATCH, lines, url, tmp_path)
    assert run(url, INDEX) is None
    there = asyncio.run(how_many(url))
    assert there < MANY
    assert ingested(lines, url, tmp_path) == f"{MANY - there} stored, {there} unchanged, 0 failed"
    assert asyncio.run(contents(url)) == asyncio.run(contents(undisturbed))


def test_a_few_more_documents_leave_the_index_where_it_is(loaded, tmp_path):
    url, _ = loaded
    before = run(url, INDEX)
    ingested(written(tmp_path, 3, first=5_000), url, tmp_path)
    assert run(url, INDEX) == before


def test_an_index_that_was_left_unfinished_is_built_anew_though_nothing_has_changed(loaded, tmp_path):
    url, lines = loaded
    before = run(url, INDEX)["indexrelid"]
    run(url, f"update pg_index set indisvalid = false where indexrelid = '{VECTOR_INDEX}'::regclass")
    assert ingested(lines, url, tmp_path).startswith("0 stored")
    after = run(url, INDEX)
    assert after["indisvalid"] is True
    assert after["indexrelid"] != before


def test_a_server_that_starts_builds_an_index_that_is_missing(loaded, start_server):
    url, _ = loaded
    run(url, f"drop index {VECTOR_INDEX}")
    start_server(database_url=url, sample="false")
    assert run(url, INDEX)["indisvalid"] is True


def test_an_index_that_another_load_leaves_out_is_left_to_it(loaded, tmp_path):
    url, lines = loaded
    run(url, f"drop index {VECTOR_INDEX}")

    async def beside_another_load():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        await connection.execute("select pg_advisory_lock($1)", vectors.LOAD_LOCK)
        await asyncio.to_thread(ingested, lines, url, tmp_path)
        await connection.close()

    asyncio.run(beside_another_load())
    assert run(url, INDEX) is None
    ingested(lines, url, tmp_path)
    assert run(url, INDEX)["indisvalid"] is True


def test_searches_are_answered_while_a_load_leaves_the_index_out(new_database, start_server, tmp_path):
    url = new_database()
    ingested(written(tmp_path, 20), url, tmp_path)
    server = start_server(database_url=url, sample="false")
    process = ingesting(written(tmp_path, MANY, first=20), url, tmp_path)
    without_index = 0
    with httpx.Client(base_url=server.url, timeout=20) as client:
        while process.poll() is None:
            answer = client.post("/search", json={"query": "How many stripes has animal 7?"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["passages"][0]["document_id"] == "d7"
            without_index += run(url, INDEX) is None
    assert process.returncode == 0, process.stderr.read()
    process.stderr.close()
    assert without_index > 0
    assert run(url, INDEX)["indisvalid"] is True


async def test_no_more_documents_are_read_than_are_under_way(new_database_async, tmp_path):
    taken = done = most = 0

    def items():
        nonlocal taken, most
        for n in range(AT_ONCE * BATCH * 3):
            taken += 1
            most = max(most, taken - done)
            yield Document(id=f"d{n}", title="", text=f"The number is {n}.", path="")

    settings = Settings(database_url=await new_database_async(), data_dir=tmp_path, sample=False)
    async with running(settings) as system:
        async for results in ingest_items(system, items()):
            done += len(results)
    assert done == AT_ONCE * BATCH * 3
    assert most <= AT_ONCE * BATCH


def test_a_batch_of_long_documents_has_fewer_of_them():
    long = [Document(id=f"d{n}", title="", text="x" * (BATCH_CHARS // 4 + 1), path="") for n in range(10)]
    items = iter(long)
    assert [len(_batch(items, BATCH)) for _ in range(4)] == [4, 4, 2, 0]


async def test_an_index_is_built_on_the_way_when_a_search_without_it_would_take_long(new_database_async, monkeypatch):
    monkeypatch.setattr(vectors, "LEAST", 10)
    monkeypatch.setattr(vectors, "MOST", 30)
    engine = database.connect(await new_database_async(), 2)
    await migrate.upgrade(engine)
    await Documents(engine).bind(FakeEmbedder())
    seen = []
    async with writer(engine) as store:
        for total in (8, 16, 24, 32, 40):
            await store._connection.execute("update store set chunks = $1", total)
            await store.index.wrote(8)
            seen.append(await store._connection.fetchrow(INDEX) is not None)
    await engine.dispose()
    assert seen == [True, False, False, True, True]
