"""``stagecast ingest`` as a user meets it, on a real database."""

import asyncio
import gzip
import json
import re
import signal
import subprocess
import sys
import time

import asyncpg
import pytest

from api.ingest.ingest import AT_ONCE, BATCH
from tests.conftest import clean_environment

ARTICLE = "---\nid: zebra\ntitle: Zebras\nkind: animal\n---\n\n# Zebras\n\nZebras have stripes that confuse flies.\n"


@pytest.fixture
def database(new_database):
    return new_database()


def run(command, database, tmp_path, **settings):
    environment = clean_environment(database_url=database, data_dir=tmp_path / "data", sample="false", **settings)
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *map(str, command)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def rows(database, query):
    async def fetch():
        connection = await asyncpg.connect(database.replace("+asyncpg", ""))
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def counts(database):
    """Return what the store believes of its chunks, and what is there."""
    believed = rows(database, "select chunks, length from store")
    real = rows(
        database,
        "select (select count(*) from chunk), coalesce(sum(length), 0)::bigint"
        " from (select distinct chunk_id, length from posting) p",
    )
    wrong = rows(
        database,
        "select term from term left join (select term, count(*) n from posting group by term) p using (term)"
        " where term.chunks <> coalesce(n, 0)",
    )
    return believed, real, wrong


def consistent(database):
    believed, real, wrong = counts(database)
    return believed == real and not wrong


def test_every_format_is_read_and_bad_files_are_told_by_name(database, tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "zebra.md").write_text(ARTICLE)
    (folder / "deep" / "plain.txt").write_text("Lions have manes and live in prides.")
    (folder / "page.html").write_text("<title>Bears</title><main><h1>Bears</h1><p>Bears sleep in winter.</p></main>")
    (folder / "lines.jsonl").write_text('{"_id": "fox", "title": "Foxes", "text": "Foxes are clever."}\nnot json\n')
    with gzip.open(folder / "more.jsonl.gz", "wt") as lines:
        lines.write('{"id": "owl", "title": "Owls", "text": "Owls hunt at night."}\n')
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "empty.md").write_text("")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    done = run(["ingest", folder], database, tmp_path)
    assert done.returncode == 1
    for name in ("broken.pdf", "empty.md", "latin.txt", "lines.jsonl:2"):
        assert name in done.stderr
    assert "5 stored, 0 unchanged, 4 failed" in done.stderr
    ids = {row[0] for row in rows(database, "select id from document")}
    assert ids == {"zebra", "deep/plain.txt", "page.html", "fox", "owl"}
    assert consistent(database)


def test_unchanged_documents_are_skipped_and_changed_ones_replaced(database, tmp_path):
    article = tmp_path / "zebra.md"
    article.write_text(ARTICLE)
    assert "1 stored" in run(["ingest", article], database, tmp_path).stderr
    before = rows(database, "select id from chunk")
    again = run(["ingest", article], database, tmp_path)
    assert again.returncode == 0
    assert "0 stored, 1 unchanged" in again.stderr
    assert rows(database, "select id from chunk") == before
    article.write_text(ARTICLE.replace("flies", "lions"))
    assert "1 stored" in run(["ingest", article], database, tmp_path).stderr
    assert "lions" in rows(database, "select text from chunk")[0][0]
    assert rows(database, "select count(*) from chunk") == [(1,)]
    assert rows(database, "select chunks from term where term = 'fli'") == [(0,)]
    assert consistent(database)


def test_two_files_with_one_id_are_told_apart(database, tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(ARTICLE)
    done = run(["ingest", tmp_path / "a.md", tmp_path / "b.md"], database, tmp_path)
    assert done.returncode == 1
    assert "'zebra'" in done.stderr
    assert rows(database, "select path from document")[0][0].endswith("a.md")


def test_a_missing_path_does_not_stop_the_rest(database, tmp_path):
    (tmp_path / "zebra.md").write_text(ARTICLE)
    done = run(["ingest", tmp_path / "nowhere", tmp_path / "zebra.md"], database, tmp_path)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "1 stored" in done.stderr


def test_an_interrupt_loses_nothing_that_was_reported_done(database, tmp_path):
    lines = tmp_path / "many.jsonl"
    text = "Every sentence about this animal is a little different from the others in the collection. " * 20
    lines.write_text("".join(json.dumps({"id": f"d{n}", "text": f"{n} {text}"}) + "\n" for n in range(600)))
    environment = clean_environment(database_url=database, data_dir=tmp_path / "data", sample="false")
    command = [sys.executable, "-m", "api.cli", "ingest", str(lines)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # The batch behind those under way begins only after the first was reported.
    while time.monotonic() < deadline and documents(database) < (AT_ONCE + 1) * BATCH:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=30)
    assert process.returncode == 130
    reported = int(printed.split(" stored,")[0].split()[-1])
    assert 0 < reported <= documents(database) < 600
    assert consistent(database)


def documents(database):
    try:
        return rows(database, "select count(*) from document")[0][0]
    except asyncpg.UndefinedTableError:
        return 0


def test_reindexing_makes_every_vector_anew(database, tmp_path):
    (tmp_path / "zebra.md").write_text(ARTICLE)
    run(["ingest", tmp_path / "zebra.md"], database, tmp_path)
    before = rows(database, "select embedding::text, sentences from chunk")
    done = run(["reindex"], database, tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows(database, "select embedding::text, sentences from chunk") == before
    assert "1 unchanged" in run(["ingest", tmp_path / "zebra.md"], database, tmp_path).stderr
    assert consistent(database)


def test_a_question_is_answered_in_the_terminal_from_what_was_ingested(database, tmp_path):
    (tmp_path / "zebra.md").write_text(ARTICLE)
    run(["ingest", tmp_path / "zebra.md"], database, tmp_path)
    done = run(["ask", "What do the stripes of zebras confuse?"], database, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Zebras have stripes that confuse flies [1].\n"
    assert "retrieval" in done.stderr
    assert "Zebras" in done.stderr


def test_a_follow_up_in_the_terminal_is_shown_as_it_is_searched_for(database, tmp_path):
    (tmp_path / "zebra.md").write_text(ARTICLE)
    run(["ingest", tmp_path / "zebra.md"], database, tmp_path)
    first = run(["ask", "--session", "talk", "What do the stripes of zebras confuse?"], database, tmp_path)
    assert "condense" not in first.stderr
    done = run(["ask", "--session", "talk", "And in summer?"], database, tmp_path)
    assert done.returncode == 0, done.stderr
    [shown] = re.findall(r"condense: \d+ ms \((.*)\)", " ".join(done.stderr.split()))[:1]
    assert shown.startswith("query What do the stripes of zebras confuse in summer?, method carried")


def test_the_plugins_are_listed_with_those_in_force_marked(database, tmp_path):
    listed = run(["plugins"], database, tmp_path)
    assert listed.returncode == 0
    marked = [
        line.split()[2] for line in listed.stdout.splitlines() if line.startswith("*") and "stages in" not in line
    ]
    assert {"hybrid", "extractive", "minilm", "flashrank", "memory"} <= set(marked)
    assert "litellm" not in marked
