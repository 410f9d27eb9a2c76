"""``stagecast eval`` as a user meets it, on a real database."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.conftest import clean_environment, installed

ANIMALS = {
    "zebra": "Zebras have black and white stripes that confuse biting flies.",
    "lion": "Lions live in prides and the males have manes.",
    "owl": "Owls hunt mice at night and turn their heads far round.",
    "bear": "Brown bears sleep through the winter in dens.",
    "bee": "Honey bees dance to tell each other where flowers are.",
    "salmon": "Salmon swim up rivers to lay their eggs where they were born.",
    "camel": "Camels store fat in their humps and can go for days without water.",
    "spider": "Spiders spin webs of silk to catch insects.",
    "bat": "Bats find their way in the dark by echoes of their calls.",
    "whale": "Whales are mammals that breathe air and sing under water.",
    "beaver": "Beavers fell trees with their teeth and build dams.",
    "penguin": "Penguins cannot fly, and keep their eggs warm on their feet.",
}
QUERIES = {
    "q1": ("Why do zebras have stripes?", {"zebra": 1}),
    "q2": ("How do bats find their way in the dark?", {"bat": 1}),
    "q3": ("Which animals build dams from trees?", {"beaver": 1, "gone": 1}),
    "unjudged": ("Who sings?", {}),
}
MEASURES = {"ndcg@10", "recall@10", "recall@50", "mrr@10"}
HALF_FOUND = 1 / (1 + 0.63093)  # one of two relevant documents in the first place: 1 / (1 + 1 / log2(3))
ENTRY_POINTS = "[stagecast.rerankers]\nbackwards = stagecast_backwards:Backwards\n"


def beir(folder, documents, queries=QUERIES):
    (folder / "qrels").mkdir(parents=True)
    lines = [{"_id": name, "title": name.title(), "text": text} for name, text in documents.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = [{"_id": name, "text": text} for name, (text, _) in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    grades = [(name, document, n) for name, (_, found) in queries.items() for document, n in found.items()]
    rows = "".join(f"{name}\t{document}\t{grade}\n" for name, document, grade in grades)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder


@pytest.fixture
def animals(tmp_path):
    """Return a BEIR folder whose corpus no other test has, so that its store is new."""
    return beir(tmp_path / "animals", ANIMALS | {"other": f"The code of the day is {uuid.uuid4().hex}."})


def command(*arguments, folder, path=None, **settings):
    environment = clean_environment(**{"data_dir": folder / "data", "sample": "false"} | settings)
    return {
        "args": [sys.executable, "-m", "api.cli", "eval", *map(str, arguments)],
        "env": environment | ({"PYTHONPATH": str(path)} if path else {}),
        "cwd": folder,
        "text": True,
    }


def run(*arguments, folder, **settings):
    asked = command(*arguments, folder=folder, **settings)
    return subprocess.run(**asked, capture_output=True, timeout=90, check=False)


def report(*arguments, **settings):
    done = run(*arguments, "--json", **settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(url, query):
    async def fetch():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def test_a_folder_is_measured_in_a_store_of_its_own_that_the_next_run_uses_again(animals, tmp_path, new_database):
    url = new_database()
    first = run(animals, "--json", folder=tmp_path, database_url=url)
    assert first.returncode == 0, first.stderr
    assert "13 stored" in first.stderr
    assert "1 relevant documents are not in corpus.jsonl" in first.stderr
    assert rows(url, "select tablename from pg_tables where schemaname = 'public'") == []
    second = run(animals, folder=tmp_path, database_url=url)
    assert "0 stored, 13 unchanged" in second.stderr
    assert "animals: 3 queries, 13 documents" in second.stdout
    third = run(animals, "--fresh", folder=tmp_path, database_url=url)
    assert "13 stored, 0 unchanged" in third.stderr


def test_the_report_has_every_figure_of_the_whole_and_of_each_part(animals, tmp_path, new_database):
    found = report(animals, folder=tmp_path, database_url=new_database())
    assert (found["dataset"], found["queries"], found["documents"]) == ("animals", 3, 13)
    assert list(found["systems"]) == ["default", "dense", "lexical"]
    for figures in found["systems"].values():
        assert set(figures) == MEASURES | {"ms_p50", "ms_p95", "cpu_ms"}
        assert 0 < figures["ms_p50"] <= figures["ms_p95"]
    whole = found["systems"]["default"]
    assert whole["mrr@10"] == 1
    assert whole["recall@10"] == whole["recall@50"] == pytest.approx(2.5 / 3, abs=1e-4)
    assert whole["ndcg@10"] == pytest.approx((2 + HALF_FOUND) / 3, abs=1e-4)
    assert found["per_query"]["default"]["recall@10"] == {"q1": 1, "q2": 1, "q3": 0.5}
    assert found["configuration"]["candidates"] == 50
    assert found["comparisons"]["dense"]["mrr@10"]["p"] == 1


def test_a_part_finds_only_what_it_can(tmp_path, new_database):
    queries = {"q": ("feline predators of the savanna", {"lion": 1})}  # no word of this is in the corpus
    folder = beir(tmp_path / "words", ANIMALS, queries)
    found = report(folder, folder=tmp_path, database_url=new_database(), candidates=5)
    assert found["systems"]["lexical"]["recall@50"] == 0
    assert found["systems"]["dense"]["mrr@10"] == 1


def test_a_reranker_is_measured_with_and_without_and_compared_by_query(animals, tmp_path, new_database):
    site = installed(tmp_path, Path(__file__).with_name("stagecast_backwards.py"), ENTRY_POINTS)
    settings = {"folder": tmp_path, "database_url": new_database()}
    straight = report(animals, **settings)
    turned = report(animals, path=site, reranker="backwards", **settings)
    assert list(turned["systems"]) == ["default", "fused", "dense", "lexical"]
    assert turned["configuration"]["reranker"] == "backwards"
    assert turned["systems"]["fused"]["mrr@10"] == straight["systems"]["default"]["mrr@10"] == 1
    against = turned["comparisons"]["fused"]["mrr@10"]
    assert against["difference"] < -0.8
    assert (against["wins"], against["ties"], against["losses"]) == (0, 0, 3)
    unused = report(animals, path=site, reranker="backwards", stages="retrieval,generation", **settings)
    assert unused["systems"]["default"]["mrr@10"] == 1
    assert unused["configuration"]["reranker"] == "none"


def test_two_reports_are_compared_by_query(animals, tmp_path, new_database):
    site = installed(tmp_path, Path(__file__).with_name("stagecast_backwards.py"), ENTRY_POINTS)
    settings = {"folder": tmp_path, "database_url": new_database()}
    for name, chosen in (("good", {}), ("bad", {"path": site, "reranker": "backwards"})):
        (tmp_path / f"{name}.json").write_text(run(animals, "--json", **settings, **chosen).stdout)
    same = run("--compare", "good.json", "good.json", folder=tmp_path).stdout
    assert [line.split()[-5:] for line in same.splitlines() if "mrr@10" in line] == [
        ["+0.0000", "1.0000", "0", "3", "0"]
    ]
    shown = run("--compare", "good.json", "bad.json", folder=tmp_path).stdout
    [difference, _, *counts] = next(line.split()[-5:] for line in shown.splitlines() if "mrr@10" in line)
    assert float(difference) > 0.8
    assert counts == ["3", "0", "0"]


def test_reports_of_different_queries_are_not_compared(tmp_path):
    report = {"dataset": "x", "queries": 1, "documents": 1, "systems": {}}
    for name, query in (("a", "q1"), ("b", "q2")):
        scores = {"default": {"mrr@10": {query: 1.0}}}
        (tmp_path / f"{name}.json").write_text(json.dumps({**report, "per_query": scores}))
    (tmp_path / "c.json").write_text("{}")
    done = run("--compare", "a.json", "b.json", folder=tmp_path)
    assert done.returncode == 1
    assert "a.json and b.json are of different queries" in done.stderr
    broken = run("--compare", "a.json", "c.json", folder=tmp_path)
    assert "c.json is no report of `stagecast eval FOLDER --json`" in broken.stderr


def test_an_ingestion_that_was_killed_is_finished_by_the_next_run(tmp_path, new_database):
    mark = uuid.uuid4().hex
    text = "Every sentence about this animal is a little different from the others in the collection. " * 8
    many = {f"d{n}": f"{n} {mark} {text}" for n in range(300)} | ANIMALS
    folder, url = beir(tmp_path / "many", many), new_database()
    process = subprocess.Popen(**command(folder, folder=tmp_path, database_url=url), stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = next(line for line in process.stderr if line.startswith("Store: "))
    name = told.split("database ")[1].split(";")[0]
    store = url.rsplit("/", 1)[0] + f"/{name}?" + url.partition("?")[2]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and documents(store) < 64:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    there = documents(store)
    assert 64 <= there < len(many)
    done = run(folder, "--json", folder=tmp_path, database_url=url)
    assert done.returncode == 0, done.stderr
    stored, unchanged = (
        int(part.split()[0]) for part in done.stderr.split("failed")[0].splitlines()[-1].split(",")[:2]
    )
    assert (stored + unchanged, unchanged >= there) == (len(many), True)
    assert documents(store) == len(many) == json.loads(done.stdout)["documents"]


def documents(store):
    try:
        return rows(store, "select count(*) from document")[0][0]
    except (asyncpg.UndefinedTableError, asyncpg.InvalidCatalogNameError):
        return 0


def test_a_server_on_the_same_folder_goes_on_and_its_collection_stays(animals, start_server, tmp_path):
    server = start_server(sample="false")
    data = server.log_path.parent / "data"
    found = report(animals, folder=tmp_path, data_dir=data)
    assert found["systems"]["default"]["mrr@10"] == 1
    assert httpx.get(f"{server.url}/documents").json()["total"] == 0
    assert httpx.get(f"{server.url}/health/ready").status_code == 200


def test_the_stores_of_evaluations_can_be_dropped(animals, tmp_path):
    report(animals, folder=tmp_path)  # on an embedded server of its own
    dropped = run("--drop", folder=tmp_path)
    assert dropped.returncode == 0, dropped.stderr
    assert "stagecast_eval_" in dropped.stderr
    assert "nothing was there" in run("--drop", folder=tmp_path).stderr


def test_a_bad_folder_ends_with_one_line_that_names_file_and_line(animals, tmp_path):
    with (animals / "qrels" / "test.tsv").open("a") as lines:
        lines.write("q1 zebra 1\n")
    done = run(animals, folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("stagecast: ")
    assert "test.tsv:6" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["nowhere"], [".", "--url", "http://127.0.0.1:1"], ["--compare", "nowhere.json", "nowhere.json"]]
)
def test_a_command_that_names_nothing_that_is_there_is_a_mistake_of_use(tmp_path, arguments):
    assert run(*arguments, folder=tmp_path).returncode == 2


def test_a_role_that_may_not_make_databases_is_told_what_helps(animals, tmp_path, new_database):
    url, role = new_database(), f"r{uuid.uuid4().hex[:8]}"
    rows(url, f"create role {role} login")
    rows(url, "create extension vector")
    done = run(animals, folder=tmp_path, database_url=url.replace("//stagecast", f"//{role}"))
    assert done.returncode == 1
    assert f"alter role {role} createdb" in done.stderr


def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it(animals, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "ir_measures.py").write_text("raise ModuleNotFoundError(name='ir_measures')\n")
    done = run(animals, folder=tmp_path, path=tmp_path / "site")
    assert done.returncode == 1
    assert "uv sync --extra eval" in done.stderr
