"""A collection that Qdrant searches, as a user meets it: served, ingested beside, killed, chosen later, broken."""

import asyncio
from pathlib import Path

import httpx
import pytest
from qdrant_client import QdrantClient

from tests.api.test_bulk import ingested, killed_after, written
from tests.api.test_documents import ended, found, upload
from tests.api.test_ingest import ARTICLE, documents, rows, run
from tests.api.test_start import failed_start
from tests.conftest import answer_of, ask, first
from tests.qdrant_server import QdrantServer
from tests.stored import contents

MANY = 200


@pytest.fixture(scope="module")
def database(new_database):
    return new_database()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Lend a folder whose ``data`` is the server's."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def library(start_server, database, home):
    """Lend a server that has filled Qdrant with the sample collection."""
    return start_server(retriever="qdrant", database_url=database, data_dir=home / "data")


def held(home):
    """Return document and position of each chunk that Qdrant's folder has; nobody else may have it open."""
    client = QdrantClient(path=str(Path(home) / "data" / "qdrant"))
    try:
        [collection] = client.get_collections().collections
        points, _ = client.scroll(collection.name, limit=100_000)
        return {
            point.id: tuple((point.payload or {})[name] for name in ("document_id", "position")) for point in points
        }
    finally:
        client.close()


def stored(database):
    return {row[0]: row[1:] for row in rows(database, "select id, document_id, position from chunk")}


def passages(server, query):
    answer = httpx.post(f"{server.url}/search", json={"query": query, "limit": 100}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["passages"]


def test_questions_to_the_sample_collection_are_answered_from_passages_of_qdrant(library):
    events = ask(library, "What are the side effects of aripiprazole?")
    assert first(events, "retrieval_complete")["doc_count"] == 50
    assert "aripiprazole" in [source["document_id"] for source in first(events, "sources")["sources"]]
    assert "[1]" in answer_of(events)
    assert all(list(passage["scores"]) == ["dense"] for passage in passages(library, "aripiprazole"))


def test_what_is_uploaded_is_found_what_changed_replaced_and_what_is_deleted_gone(library):
    ended(
        library, upload(library, ("okapi.md", "# Okapi\n\nThe okapi licks its own eyes.\n\n# Home\n\nThe okapi naps."))
    )
    assert "licks" in answer_of(ask(library, "What does the okapi lick?"))
    ended(library, upload(library, ("okapi.md", "# Okapi\n\nThe okapi has a blue tongue.")))
    texts = [passage["text"] for passage in passages(library, "okapi") if passage["document_id"] == "okapi.md"]
    assert ["blue tongue" in text for text in texts] == [True]
    assert httpx.delete(f"{library.url}/documents/okapi.md").status_code == 204
    assert "okapi.md" not in found(library, "okapi")


def test_an_ingestion_beside_a_server_that_has_the_folder_open_is_refused_with_the_remedy(
    library, database, home, tmp_path
):
    (tmp_path / "zebra.md").write_text(ARTICLE)
    done = run(["ingest", tmp_path / "zebra.md"], database, home, retriever="qdrant")
    assert done.returncode == 1
    [message] = done.stderr.strip().splitlines()
    assert message.startswith("stagecast: another process")
    assert "STAGECAST_QDRANT_URL" in message


def test_a_reindex_that_cannot_reach_the_index_empties_nothing(library, database, home):
    before = asyncio.run(contents(database))
    done = run(["reindex"], database, home, retriever="qdrant")
    assert done.returncode == 1
    assert "another process" in done.stderr
    assert asyncio.run(contents(database)) == before
    assert "aripiprazole" in found(library, "aripiprazole")


def test_an_ingestion_that_is_killed_and_begun_again_leaves_nothing_twice_and_nothing_missing(new_database, tmp_path):
    lines, disturbed, undisturbed = written(tmp_path, MANY), new_database(), new_database()
    ingested(lines, undisturbed, tmp_path)
    killed_after(1, lines, disturbed, tmp_path, retriever="qdrant")
    killed_after(documents(disturbed) + 1, lines, disturbed, tmp_path, retriever="qdrant")
    assert documents(disturbed) < MANY
    ingested(lines, disturbed, tmp_path, retriever="qdrant")
    assert asyncio.run(contents(disturbed)) == asyncio.run(contents(undisturbed))
    assert held(tmp_path) == stored(disturbed)
    assert len(held(tmp_path)) == MANY


def test_a_collection_that_was_ingested_without_it_is_copied_at_the_start(new_database, start_server, tmp_path):
    url = new_database()
    ingested(written(tmp_path, 20), url, tmp_path)
    server = start_server(retriever="qdrant", database_url=url, data_dir=tmp_path / "data", sample=False)
    assert passages(server, "How many stripes has animal 7?")[0]["document_id"] == "d7"
    [told] = [line for line in server.log_lines() if line["event"] == "index.behind"]
    assert (told["lacking"], told["left_over"]) == (20, 0)
    server.stop()
    assert held(tmp_path) == stored(url)


def test_after_reindexing_the_new_chunks_are_in_qdrant_and_no_others(new_database, tmp_path):
    url = new_database()
    ingested(written(tmp_path, 5), url, tmp_path, retriever="qdrant")
    before = held(tmp_path)
    done = run(["reindex"], url, tmp_path, retriever="qdrant")
    assert done.returncode == 0, done.stderr
    assert not set(held(tmp_path)) & set(before)
    assert held(tmp_path) == stored(url)


def test_an_evaluation_has_a_collection_of_its_own(new_database, tmp_path):
    url = new_database()
    ingested(written(tmp_path, 5), url, tmp_path, retriever="qdrant")
    before = held(tmp_path)
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "fox", "title": "Foxes", "text": "Foxes are clever."}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "Who is clever?"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tfox\t1\n")
    done = run(["eval", folder, "--json"], url, tmp_path, retriever="qdrant")
    assert done.returncode == 0, done.stderr
    assert '"ndcg@10":1.0' in done.stdout
    client = QdrantClient(path=str(tmp_path / "data" / "qdrant"))
    counts = sorted(client.count(each.name).count for each in client.get_collections().collections)
    client.close()
    run(["eval", "--drop"], url, tmp_path)
    assert counts == [1, len(before)]


def test_a_server_of_qdrant_is_shared_and_its_failure_ends_the_question_alone(new_database, start_server, tmp_path):
    url = new_database()
    with QdrantServer() as qdrant:
        server = start_server(retriever="qdrant", database_url=url, sample=False, qdrant_url=qdrant.url)
        ingested(written(tmp_path, 5), url, tmp_path, retriever="qdrant", qdrant_url=qdrant.url)
        assert passages(server, "How many stripes has animal 3?")[0]["document_id"] == "d3"
        qdrant.broken = True
        events = ask(server, "How many stripes has animal 3?")
        assert first(events, "error")["code"] == "RETRIEVAL_ERROR"
        job = ended(server, upload(server, ("zebra.md", ARTICLE)))
        assert (job["status"], job["stored"], job["error"]["code"]) == ("error", 0, "INGESTION_ERROR")
        assert "Qdrant" in job["error"]["message"]
        qdrant.broken = False
        assert ended(server, upload(server, ("zebra.md", ARTICLE)))["stored"] == 1
        assert "zebra" in found(server, "zebra stripes")
        server.stop()


def test_a_server_of_qdrant_that_is_not_there_stops_the_start_by_name(database, tmp_path):
    message = failed_start(tmp_path, database_url=database, retriever="qdrant", qdrant_url="http://127.0.0.1:1")
    assert "STAGECAST_QDRANT_URL" in message


def test_its_settings_are_listed_and_its_key_is_not_shown(database, tmp_path):
    settings = {"retriever": "qdrant", "qdrant_url": "http://u:hunter2@h:6333", "qdrant_api_key": "hunter2"}
    listed = run(["plugins", "qdrant"], database, tmp_path, **settings)
    assert listed.returncode == 0, listed.stderr
    for name in ("STAGECAST_QDRANT_URL", "STAGECAST_QDRANT_API_KEY", "STAGECAST_QDRANT_COLLECTION"):
        assert name in listed.stdout
    assert "hunter2" not in listed.stdout
