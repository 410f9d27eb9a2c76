"""Documents uploaded, watched on their way into the collection, and deleted, on real servers."""

import json
import signal
import socket
import threading
import time
import uuid

import httpx
import pytest

from tests.api.test_access import ALICE, BOB, KEYS, wait_until
from tests.api.test_ingest import consistent, rows
from tests.api.test_web_and_pdf_readers import pdf
from tests.conftest import ask, first

ZEBRA = "---\nid: zebra\ntitle: Zebras\n---\n\n# Zebras\n\nZebras have stripes that confuse biting flies.\n"
LINES = '{"_id": "fox", "title": "Foxes", "text": "Foxes are clever."}\n{"_id": "owl", "text": "Owls hunt at night."}\n'
PAGE = "<title>Bears</title><main><h1>Bears</h1><p>Bears sleep through the winter in dens.</p></main>"

FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="a"'
"""The beginning of a part of such a form."""


@pytest.fixture(scope="module")
def spools(tmp_path_factory):
    """Where the servers of this module keep uploads while they are at work."""
    return tmp_path_factory.mktemp("spools")


@pytest.fixture(scope="module")
def start(start_server, spools):
    """Start a server with an empty collection of its own."""
    return lambda **settings: start_server(sample=False, environment={"TMPDIR": str(spools)}, **settings)


@pytest.fixture(scope="module")
def database(new_database):
    return new_database()


@pytest.fixture(scope="module")
def library(start, database):
    return start(database_url=database)


@pytest.fixture(scope="module")
def small(start, database, library):
    """Take uploads of 1 MB at most."""
    return start(database_url=database, max_upload_mb=1)


@pytest.fixture(scope="module")
def shared_database(new_database):
    return new_database()


@pytest.fixture(scope="module")
def locked(start, shared_database):
    open_to_all = start(database_url=shared_database)
    ended(open_to_all, upload(open_to_all, ("everybodys.md", "Everybody may read of the quokka.")))
    open_to_all.stop()
    return start(database_url=shared_database, api_keys=KEYS)


def post(server, *files, headers=None):
    """Send files given as (name, content)."""
    parts = [("file", (name, content)) for name, content in files]
    return httpx.post(f"{server.url}/documents", files=parts, headers=headers, timeout=60)


def upload(server, *files, headers=None):
    response = post(server, *files, headers=headers)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["location"] == f"/jobs/{job['job_id']}"
    return job


def events(server, job, **options):
    """Return the job's events as they stand on the wire, once it has ended."""
    with httpx.stream("GET", f"{server.url}/jobs/{job['job_id']}/events", timeout=60, **options) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [block for block in response.read().decode().split("\n\n") if block.startswith(("id:", "retry:"))]


def decoded(blocks):
    return [json.loads(block.split("data: ", 1)[1]) for block in blocks]


def ended(server, job, headers=None):
    """Wait for the job's last event, and return the job."""
    events(server, job, headers=headers)
    return httpx.get(f"{server.url}/jobs/{job['job_id']}", headers=headers).json()


def found(server, query, headers=None):
    response = httpx.post(f"{server.url}/search", json={"query": query, "limit": 100}, headers=headers, timeout=30)
    return {passage["document_id"] for passage in response.json()["passages"]}


def many(count, chars=400):
    """Return JSON lines of so many documents."""
    text = "Every sentence about this animal is a little different from the others in the collection. " * (chars // 90)
    return "".join(json.dumps({"id": f"d{n}", "text": f"{n} {text}"}) + "\n" for n in range(count))


def test_files_of_every_kind_are_found_read_and_cited_and_a_bad_one_is_told(library, spools):
    giraffe = pdf(["Giraffes have long necks and eat acacia leaves."])
    files = (
        ("zebra.md", ZEBRA),
        ("giraffe.pdf", giraffe),
        ("bears.html", PAGE),
        ("more.jsonl", LINES),
        ("bad.pdf", b"%PDF"),
    )
    job = upload(library, *files)
    assert job["status"] in {"queued", "running"}
    after = ended(library, job)
    assert (after["status"], after["total"], after["done"], after["stored"], after["failed"]) == (
        "completed",
        6,
        6,
        5,
        1,
    )
    assert after["error"] is None
    assert after["elapsed_ms"] > 0
    [failure] = after["failures"]
    assert failure["path"] == "bad.pdf"
    assert failure["reason"]
    for name, words in (("zebra", "stripes"), ("giraffe.pdf", "acacia"), ("bears.html", "dens"), ("owl", "night")):
        document = httpx.get(f"{library.url}/documents/{name}").json()
        assert words in document["text"]
        assert name in found(library, words)
    sources = first(ask(library, "What do stripes of zebras confuse?"), "sources")["sources"]
    assert "zebra" in {source["document_id"] for source in sources}
    assert list(spools.iterdir()) == []


def test_what_is_uploaded_again_is_unchanged_and_what_changed_replaces(library, database):
    first_time = ended(library, upload(library, ("lynx.md", "The lynx has tufted ears.")))
    again = ended(library, upload(library, ("lynx.md", "The lynx has tufted ears.")))
    changed = ended(library, upload(library, ("lynx.md", "The lynx has a bobbed tail.")))
    assert [(job["stored"], job["unchanged"]) for job in (first_time, again, changed)] == [(1, 0), (0, 1), (1, 0)]
    assert "bobbed" in httpx.get(f"{library.url}/documents/lynx.md").json()["text"]
    assert rows(database, "select count(*), min(path) from document where id = 'lynx.md'") == [(1, "lynx.md")]
    assert consistent(database)


def test_the_events_of_a_job_are_whole_and_the_same_for_whoever_comes_late(library):
    files = [(f"beetle{n}.txt", f"Beetle number {n} has six legs.") for n in range(5)]
    job = upload(library, *files, ("empty.md", ""))
    blocks = events(library, job)
    assert [block.split("\n")[0] for block in blocks] == [f"id: {n}" for n in range(1, len(blocks) + 1)]
    told = decoded(blocks)
    assert all(list(event) == ["type", "content", "timestamp"] for event in told)
    assert told[0]["content"] == {"stage": "ingestion", "status": "started", "job_id": job["job_id"], "total": 6}
    steps = [event["content"] for event in told[1:-1]]
    assert {event["type"] for event in told[1:-1]} == {"ingestion_progress"}
    assert [step["done"] for step in steps] == sorted({step["done"] for step in steps})
    assert [failure["path"] for step in steps for failure in step["failures"]] == ["empty.md"]
    counts = {"total": 6, "stored": 5, "unchanged": 0, "failed": 1}
    assert steps[-1].items() >= {**counts, "done": 6}.items()
    assert told[-1]["type"] == "ingestion_complete"
    assert told[-1]["content"].items() >= {"stage": "ingestion", "status": "complete", **counts}.items()
    assert events(library, job) == blocks
    for seen in range(len(blocks)):
        assert events(library, job, headers={"Last-Event-ID": str(seen)}) == blocks[seen:]
        assert events(library, job, params={"after": seen}) == blocks[seen:]


def test_whoever_has_seen_all_of_a_job_or_more_is_told(library):
    job = upload(library, ("ant.md", "Ants carry leaves."))
    count = len(events(library, job))
    address = f"{library.url}/jobs/{job['job_id']}/events"
    assert httpx.get(address, headers={"Last-Event-ID": str(count)}).status_code == 204
    beyond = httpx.get(address, headers={"Last-Event-ID": str(count + 1)})
    assert beyond.status_code == 400
    assert "Last-Event-ID" in beyond.json()["detail"]


def test_a_deleted_document_is_gone_from_search_and_every_count(library, database):
    def counted():
        return rows(database, "select chunks, length from store"), rows(
            database, "select term, chunks from term where chunks > 0 order by term"
        )

    before = counted()
    ended(library, upload(library, ("okapi.md", "# Okapi\n\nThe okapi licks its own eyes.")))
    assert "okapi.md" in found(library, "okapi")
    assert counted() != before
    deleted = httpx.delete(f"{library.url}/documents/okapi.md")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "okapi.md" not in found(library, "okapi")
    assert httpx.get(f"{library.url}/documents/okapi.md").status_code == 404
    assert httpx.delete(f"{library.url}/documents/okapi.md").status_code == 404
    assert counted() == before
    assert consistent(database)


def test_an_address_used_as_an_id_is_deleted_as_it_is_read(library):
    name = "https://example.com//a/b/?c"
    ended(library, upload(library, ("x.md", f"---\nid: {name}\n---\nThe tapir has a snout.")))
    address = f"{library.url}/documents/https://example.com//a/b/%3Fc"
    assert httpx.get(address).json()["id"] == name
    assert httpx.delete(address).status_code == 204
    assert httpx.get(address).status_code == 404


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd.md", "passwd.md"),
        ("C:\\texts\\windows.md", "windows.md"),
        (".hidden.md", "hidden.md"),
        ("..md", "md"),
        ("", "unnamed"),
        ("Füchse 狐.md", "Füchse 狐.md"),
        ("x" * 300 + ".md", "x" * 252 + ".md"),
        ("狐" * 300 + ".md", "狐" * 84 + ".md"),
        ("a/b/", "unnamed"),
        ("..", "unnamed"),
    ],
)
def test_of_a_files_name_only_what_is_harmless_is_kept(library, spools, database, sent, kept):
    text = f"A text with the mark {uuid.uuid4().hex}."
    job = ended(library, sent_as(library, sent, text))
    if kept.endswith(".md"):
        assert job["stored"] == 1, job
        assert rows(database, "select id, title, path from document order by updated_at desc limit 1") == [
            (kept, kept.removesuffix(".md"), kept)
        ]
    else:
        assert job["failures"][0]["path"] == kept
        assert "unsupported" in job["failures"][0]["reason"]
    assert list(spools.iterdir()) == []


def sent_as(server, name, text):
    """Send a file under a name that a client's own library might mend."""
    body = PART + f'; filename="{name}"\r\n\r\n{text}\r\n--x--\r\n'.encode()
    headers = {"Content-Type": FORM}
    response = httpx.post(f"{server.url}/documents", content=body, headers=headers)
    assert response.status_code == 202, response.text
    return response.json()


def test_two_files_of_one_name_are_told_apart(library):
    job = ended(library, upload(library, ("twin.md", "The first twin."), ("twin.md", "The second twin.")))
    assert (job["stored"], job["failed"]) == (1, 1)
    assert job["failures"] == [{"path": "twin.md", "reason": "its id 'twin.md' is already that of twin.md"}]
    assert "first" in httpx.get(f"{library.url}/documents/twin.md").json()["text"]


def test_lines_are_counted_and_bad_ones_named_a_hundred_at_most(library):
    job = upload(library, ("bad.jsonl", "no json\n" * 250 + LINES))
    told = decoded(events(library, job))
    after = httpx.get(f"{library.url}/jobs/{job['job_id']}").json()
    assert (after["total"], after["done"], after["failed"]) == (252, 252, 250)
    assert [failure["path"] for failure in after["failures"]] == [f"bad.jsonl:{n}" for n in range(1, 101)]
    assert [f for e in told if e["type"] == "ingestion_progress" for f in e["content"]["failures"]] == after["failures"]


@pytest.mark.parametrize(
    ("content_type", "body", "refusal"),
    [
        ("application/json", b'{"file": "x"}', (415, "multipart/form-data")),
        ("", b"x", (415, "multipart/form-data")),
        ("multipart/form-data", b"x", (415, "boundary")),
        (FORM, b"", (400, "body")),
        (FORM, b"no form", (400, "body")),
        (FORM, PART + b"\r\n\r\nb\r\n--x--", (400, "file")),
        (FORM, PART + b'; filename="a.md"\r\n\r\nb', (400, "body")),
        (FORM, (PART + b'; filename="a.md"\r\n\r\nb\r\n') * 1001 + b"--x--", (400, "body")),
        (FORM, b"--x--\r\n", (400, "file")),
    ],
    ids=["json", "no type", "no boundary", "empty", "no form", "no file", "cut", "too many", "no part"],
)
def test_a_body_without_files_is_refused_by_name(library, spools, content_type, body, refusal):
    headers = {"Content-Type": content_type} if content_type else {}
    response = httpx.post(f"{library.url}/documents", content=body, headers=headers)
    status, named = refusal
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert named in response.json()["detail"]
    assert list(spools.iterdir()) == []


@pytest.mark.parametrize("announced", [True, False])
def test_an_upload_above_the_setting_is_refused(small, spools, announced):
    body = PART + b'; filename="a.md"\r\n\r\n' + b"x" * 1_100_000 + b"\r\n--x--\r\n"
    content = body if announced else iter([body])
    headers = {"Content-Type": FORM}
    response = httpx.post(f"{small.url}/documents", content=content, headers=headers)
    assert response.status_code == 413
    assert "STAGECAST_MAX_UPLOAD_MB" in response.json()["detail"]
    assert list(spools.iterdir()) == []


def test_many_files_are_taken_at_once(library):
    job = ended(library, upload(library, *((f"moth{n}.txt", f"Moth {n} flies to the light.") for n in range(300))))
    assert (job["total"], job["stored"]) == (300, 300)


def test_jobs_take_turns_and_no_more_than_twenty_wait(start, new_database):
    busy = start(database_url=new_database())
    first_job = upload(busy, ("many.jsonl", many(400)))
    others = [upload(busy, (f"f{n}.md", f"The text number {n}.")) for n in range(19)]
    full = post(busy, ("one too many.md", "x"))
    assert full.status_code == 503
    assert int(full.headers["retry-after"]) > 0
    states = [httpx.get(f"{busy.url}/jobs/{job['job_id']}").json()["status"] for job in (first_job, *others)]
    assert states == ["running"] + ["queued"] * 19
    assert busy.stop() == -signal.SIGTERM


def test_questions_are_answered_while_an_upload_is_at_work(start, new_database):
    busy = start(database_url=new_database())
    ended(busy, upload(busy, ("gecko.md", "The gecko walks on walls.")))
    job = upload(busy, ("many.jsonl", many(80, 2000)))
    alive, answered = [], []
    while httpx.get(f"{busy.url}/jobs/{job['job_id']}").json()["status"] != "completed":
        alive.append(httpx.get(f"{busy.url}/health").elapsed.total_seconds())
        begun = time.monotonic()
        assert "gecko.md" in found(busy, "gecko walls")
        answered.append(time.monotonic() - begun)
    assert len(answered) >= 5
    assert max(alive) < 1, alive
    assert max(answered) < 3, answered


def test_another_owners_upload_is_as_if_it_were_not_there(locked, shared_database):
    job = upload(locked, ("hers.md", "Alice keeps axolotls."), headers=ALICE)
    ended(locked, job, headers=ALICE)
    for path in (f"/jobs/{job['job_id']}", f"/jobs/{job['job_id']}/events"):
        theirs, none = (httpx.get(f"{locked.url}{p}", headers=BOB) for p in (path, path.replace(job["job_id"], "none")))
        assert theirs.status_code == none.status_code == 404
        assert theirs.text.replace(job["job_id"], "X") == none.text.replace("none", "X")
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{locked.url}/documents/hers.md", headers=BOB).status_code == 404
    assert "hers.md" not in found(locked, "axolotls", BOB)
    assert "hers.md" in found(locked, "axolotls", ALICE)
    assert rows(shared_database, "select owner from document where id = 'hers.md'") == [("alice",)]
    assert httpx.delete(f"{locked.url}/documents/hers.md", headers=ALICE).status_code == 204
    assert consistent(shared_database)


def test_what_is_everybodys_is_not_deleted_with_a_key(locked, shared_database):
    refused = httpx.delete(f"{locked.url}/documents/everybodys.md", headers=BOB)
    assert refused.status_code == 403
    assert "everybody" in refused.json()["detail"]
    assert "everybodys.md" in found(locked, "quokka", ALICE)
    ended(locked, upload(locked, ("everybodys.md", "Bob has a quokka."), headers=BOB), headers=BOB)
    assert "Bob" in httpx.get(f"{locked.url}/documents/everybodys.md", headers=BOB).json()["text"]
    assert httpx.delete(f"{locked.url}/documents/everybodys.md", headers=BOB).status_code == 204
    assert "Everybody" in httpx.get(f"{locked.url}/documents/everybodys.md", headers=BOB).json()["text"]
    assert consistent(shared_database)


def test_a_stop_of_the_server_ends_jobs_and_keeps_what_is_stored(start, spools, new_database):
    database = new_database()
    stopped = start(database_url=database)
    jobs = [upload(stopped, (f"{n}.jsonl", many(600))) for n in range(2)]
    told: list[list[str]] = [[], []]
    readers = [threading.Thread(target=lambda n=n: told[n].extend(events(stopped, jobs[n]))) for n in range(2)]
    for reader in readers:
        reader.start()
    wait_until(lambda: httpx.get(f"{stopped.url}/jobs/{jobs[0]['job_id']}").json()["stored"] >= 16)
    assert len(list(spools.iterdir())) == 2
    begun = time.monotonic()
    assert stopped.stop() == -signal.SIGTERM
    assert time.monotonic() - begun < 4
    for reader in readers:
        reader.join(timeout=10)
    for blocks in told:
        last = decoded(blocks)[-1]
        assert last["type"] == "error"
        assert last["content"].items() >= {"code": "SERVER_RESTART", "stage": "ingestion", "retryable": True}.items()
    stored = max(event["content"].get("stored", 0) for event in decoded(told[0]))
    assert 0 < stored <= rows(database, "select count(*) from document")[0][0] < 600
    assert consistent(database)
    assert list(spools.iterdir()) == []


def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing(library, spools):
    def broken():
        yield PART + b'; filename="a.md"\r\n\r\n' + b"x" * 100_000
        wait_until(lambda: list(spools.iterdir()))
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        httpx.post(
            f"{library.url}/documents",
            content=broken(),
            headers={"Content-Type": FORM},
        )
    wait_until(lambda: not list(spools.iterdir()))


def test_an_upload_that_announces_too_much_is_refused_before_it_is_sent(small):
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as client:
        head = f"POST /documents HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: 1100000\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_job_whose_database_breaks_off_says_so_and_the_next_one_works(start, new_database):
    database = new_database()
    cut = start(database_url=database)
    job = upload(cut, ("many.jsonl", many(200)))
    wait_until(lambda: httpx.get(f"{cut.url}/jobs/{job['job_id']}").json()["stored"] >= 10)
    rows(
        database,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name = '' and pid <> pg_backend_pid()",
    )
    last = decoded(events(cut, job))[-1]
    assert last["type"] == "error"
    assert last["content"].items() >= {"code": "INGESTION_ERROR", "stage": "ingestion", "retryable": True}.items()
    after = httpx.get(f"{cut.url}/jobs/{job['job_id']}").json()
    assert (after["status"], after["error"]) == ("error", last["content"])
    assert ended(cut, upload(cut, ("many.jsonl", many(20))))["status"] == "completed"
    assert consistent(database)
