"""Who may call: keys, owners, and a matrix of every route of the schema, so that a new route is asked for a key too."""

import itertools
import json
import re
import subprocess
import sys
import threading
import time
import uuid

import httpx
import pytest

from api.access import digest_of, parse_keys
from tests.api.test_start import failed_start
from tests.conftest import ask, clean_environment, first

ALICE = {"Authorization": "Bearer alice-key-0123456789"}
ALICE_TOO = {"Authorization": "Bearer alice-new-0123456789"}
BOB = {"Authorization": "Bearer bob-key-0123456789"}
KEYS = "alice:alice-key-0123456789, bob:bob-key-0123456789, alice:alice-new-0123456789"

PUBLIC = {("GET", "/health"), ("GET", "/health/ready")}
OWNED = {"run_id", "session_id", "job_id"}
"""Parameters that name what has an owner; documents of the sample collection are everybody's."""


@pytest.fixture(scope="module")
def locked(start_server, sample_database, server, llm):
    return start_server(database_url=sample_database, api_keys=KEYS, llm_model="openai/fake", llm_api_base=llm.url)


@pytest.fixture(scope="module")
def routes(locked):
    schema = httpx.get(f"{locked.url}/schema/openapi.json", headers=ALICE).json()
    described = [
        (method.upper(), path)
        for path, item in schema["paths"].items()
        for method in item
        if method in {"get", "post", "put", "patch", "delete"}
    ]
    return [*described, ("GET", "/schema"), ("GET", "/schema/openapi.json")]


@pytest.fixture(scope="module")
def hers(locked):
    """What belongs to Alice, by the name of the parameter that names it."""
    session_id = f"s-{uuid.uuid4()}"
    events = ask(locked, "aripiprazole", headers=ALICE, session_id=session_id)
    assert events[-1]["type"] == "done"
    job = httpx.post(f"{locked.url}/documents", files=UPLOAD, headers=ALICE).json()
    return {
        "run_id": first(events, "run_start")["run_id"],
        "session_id": session_id,
        "job_id": job["job_id"],
        "document_id": "aripiprazole",
        "model": "stagecast",
    }


UPLOAD = {"file": ("empty.md", b"")}
"""A file that gives no document: the sample collection is other tests' too."""
BODIES = {
    "/chat": {"message": "aripiprazole", "stream": False},
    "/search": {"query": "x"},
    "/v1/chat/completions": {"model": "stagecast", "messages": [{"role": "user", "content": "aripiprazole"}]},
    "rename": {"title": "x"},
}


def request(server, method, path, named, headers):
    for parameter, value in named.items():
        path = path.replace(f"{{{parameter}}}", value)
    assert "{" not in path, f"a route with a parameter that this test does not know: {path}"
    if (method, path) == ("POST", "/documents"):
        return httpx.post(f"{server.url}{path}", headers=headers, files=UPLOAD)
    body = BODIES.get(path, BODIES["rename"]) if method in {"POST", "PATCH", "PUT"} else None
    if path == "/v1/embeddings":
        models = httpx.get(f"{server.url}/v1/models", headers=ALICE).json()["data"]
        body = {"model": models[1]["id"], "input": "x"}
    return httpx.request(method, f"{server.url}{path}", headers=headers, json=body, timeout=30)


def test_the_schema_has_every_route_that_this_file_counts_on(routes):
    assert {("POST", "/chat"), ("POST", "/runs/{run_id}/cancel"), *PUBLIC} <= set(routes)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["no key", "bad key"])
def test_every_route_but_health_asks_for_a_good_key(locked, routes, hers, headers):
    for method, path in routes:
        response = request(locked, method, path, hers, headers)
        if (method, path) in PUBLIC:
            assert response.status_code == 200, path
        else:
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
            form = "application/json" if path.startswith("/v1/") else "application/problem+json"
            assert response.headers["content-type"] == form


def test_what_another_owner_has_is_as_if_it_were_not_there(locked, routes, hers):
    nowhere = {name: f"none-{uuid.uuid4().hex}" for name in hers}
    checked = 0
    for method, path in routes:
        if not any(f"{{{name}}}" in path for name in OWNED):
            continue
        theirs, none = request(locked, method, path, hers, BOB), request(locked, method, path, nowhere, BOB)
        assert theirs.status_code == none.status_code == 404, (method, path)
        shown = [
            re.sub("|".join(named[name] for name in OWNED), "X", response.text)
            for response, named in ((theirs, hers), (none, nowhere))
        ]
        assert shown[0] == shown[1]
        checked += 1
    assert checked >= 9
    assert httpx.get(f"{locked.url}/sessions/{hers['session_id']}", headers=ALICE).status_code == 200


def test_the_owner_reaches_every_route_with_either_of_her_keys(locked, routes, hers):
    for method, path in sorted(routes, key=lambda route: route[0] == "DELETE"):
        for headers in (ALICE, ALICE_TOO):
            response = request(locked, method, path, hers, headers)
            if (method, path) == ("DELETE", "/documents/{document_id}"):
                assert response.status_code == 403, "it is of the sample collection"
            else:
                assert response.status_code < 300 or (method, headers) == ("DELETE", ALICE_TOO), (method, path)


def test_two_owners_may_choose_the_same_session_id_and_key_for_a_request(locked):
    session_id, key = f"same-{uuid.uuid4()}", {"Idempotency-Key": uuid.uuid4().hex}
    runs = [first(ask(locked, "aripiprazole", headers=who | key, session_id=session_id), "run_start")["run_id"]
            for who in (ALICE, BOB)]  # fmt: skip
    assert len(set(runs)) == 2
    for who, run_id in zip((ALICE, BOB), runs, strict=True):
        messages = httpx.get(f"{locked.url}/sessions/{session_id}/messages", headers=who).json()
        assert {message["run_id"] for message in messages["messages"]} == {run_id}


def test_a_stop_of_anothers_running_run_changes_nothing(locked):
    with httpx.stream("POST", f"{locked.url}/chat", json={"message": "llm:slow"}, headers=ALICE, timeout=30) as reply:
        lines = reply.iter_lines()
        run_id = json.loads(next(line for line in lines if "run_start" in line)[6:])["content"]["run_id"]
        for method, path in (("POST", f"/runs/{run_id}/cancel"), ("GET", f"/runs/{run_id}/events")):
            assert httpx.request(method, f"{locked.url}{path}", headers=BOB).status_code == 404
        assert httpx.get(f"{locked.url}/runs/{run_id}", headers=ALICE).json()["status"] == "running"


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "alice-key-0123456789")],
        [("Authorization", "Basic YWxpY2U6eA==")],
        [("Authorization", "Bearer\talice-key-0123456789")],
        [("Authorization", "Bearer alice-key-0123456789 x")],
        [("Authorization", "Bearer alice-key-012345678")],
        [("Authorization", "Bearer ALICE-KEY-0123456789")],
        [("Authorization", "Bearer schl\u00fcssel".encode())],
        [("Authorization", "Bearer " + "x" * 50_000)],
        [("Authorization", ALICE["Authorization"]), ("Authorization", ALICE["Authorization"])],
        [("Authorization", ALICE["Authorization"]), ("Authorization", "Bearer wrong")],
        [("X-Api-Key", "alice-key-0123456789")],
        [("Cookie", "key=alice-key-0123456789")],
    ],
)
def test_only_one_well_formed_header_opens(locked, headers):
    response = httpx.get(f"{locked.url}/sessions?key=alice-key-0123456789", headers=headers)
    assert response.status_code in {401, 431}, response.text


def test_the_word_bearer_may_be_in_any_case(locked):
    assert (
        httpx.get(f"{locked.url}/sessions", headers={"authorization": "bEARER bob-key-0123456789"}).status_code == 200
    )


def test_a_documents_of_one_owner_is_not_found_by_another(locked, sample_database):
    from tests.api.test_runs import fetch

    name = f"secret-{uuid.uuid4().hex}"
    fetch(sample_database, "insert into document (owner, id, title, text, meta, path, digest, chunk_count) "
          "values ('alice', $1, 'T', 'zanzibarium', '{}', '', '', 1)", name)  # fmt: skip
    fetch(sample_database, "insert into chunk (owner, document_id, position, heading, text, embedding, sentences) "
          "select 'alice', $1, 0, '', 'zanzibarium helps', embedding, '' from chunk "
          "where document_id = 'aripiprazole' and position = 0", name)  # fmt: skip
    fetch(sample_database, "insert into term values ('zanzibarium', 1)")
    fetch(sample_database, "insert into posting select 'zanzibarium', id, 9, 2 from chunk where document_id = $1", name)
    try:
        for who, seen in ((ALICE, True), (BOB, False)):
            for query in ("zanzibarium", "What is aripiprazole?"):
                found = httpx.post(f"{locked.url}/search", json={"query": query, "limit": 100}, headers=who).json()
                assert (name in {p["document_id"] for p in found["passages"]}) == seen, (who, query)
            assert (httpx.get(f"{locked.url}/documents/{name}", headers=who).status_code == 200) == seen
            listed = httpx.get(f"{locked.url}/documents?limit=1000", headers=who).json()
            assert (name in {row["id"] for row in listed["documents"]}) == seen
            assert listed["total"] == 74 + seen
    finally:
        fetch(sample_database, "delete from document where id = $1", name)
        fetch(sample_database, "delete from term where term = 'zanzibarium'")


def keys_command(data, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "keys", *arguments],
        env=clean_environment(data_dir=data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


def test_keys_are_made_and_removed_beside_a_running_server(start_server):
    server = start_server(sample=False)
    data = server.log_path.parent / "data"
    assert httpx.get(f"{server.url}/sessions").status_code == 200
    code, key, told = keys_command(data, "add", "carol")
    assert code == 0
    assert key not in told
    headers = {"Authorization": f"Bearer {key}"}
    wait_until(lambda: httpx.get(f"{server.url}/sessions").status_code == 401)
    assert httpx.get(f"{server.url}/sessions", headers=headers).status_code == 200
    code, key_too, _ = keys_command(data, "add", "carol")
    assert httpx.get(f"{server.url}/sessions", headers={"Authorization": f"Bearer {key_too}"}).status_code == 200
    listed = keys_command(data, "list")[1].splitlines()
    assert len(listed) == 2
    assert key not in str(listed)
    assert keys_command(data, "remove", listed[0].split()[0])[0] == 0
    wait_until(lambda: httpx.get(f"{server.url}/sessions", headers=headers).status_code == 401)
    assert httpx.get(f"{server.url}/sessions", headers={"Authorization": f"Bearer {key_too}"}).status_code == 200
    assert keys_command(data, "remove", "carol")[0] == 0
    wait_until(lambda: httpx.get(f"{server.url}/sessions", headers={"Authorization": f"Bearer {key_too}"}).is_error)
    assert httpx.get(f"{server.url}/sessions").status_code == 401, "once needed, keys are needed until the restart"
    code, _, error = keys_command(data, "remove", "carol")
    assert (code, "carol" in error) == (1, True)
    assert key not in server.log_path.read_text()


def test_a_stream_is_cut_when_its_key_is_taken_away(start_server, new_database, llm):
    from tests.api.test_runs import fetch

    database = new_database()  # of its own: whoever sees a key in theirs asks for keys until the restart
    locked = start_server(
        database_url=database, api_keys="x:unused-0123456", llm_model="openai/fake", llm_api_base=llm.url
    )
    key = f"sc-{uuid.uuid4().hex}"
    row = "insert into api_key (id, owner, digest) values ($1, 'dave', $2)"
    fetch(database, row, uuid.uuid4().hex, digest_of(key))
    headers = {"Authorization": f"Bearer {key}"}
    begun = time.monotonic()
    with httpx.stream(
        "POST", f"{locked.url}/chat", json={"message": "llm:silent"}, headers=headers, timeout=30
    ) as reply:
        assert reply.status_code == 200, reply.read()
        fetch(database, "delete from api_key where owner = 'dave'")
        with pytest.raises(httpx.RemoteProtocolError):
            reply.read()
    assert time.monotonic() - begun < 15


def wait_until(condition, timeout_s=15):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_without_a_name_are_owners_of_their_own():
    keys = parse_keys("alice:one,two,three")
    assert keys[digest_of("one")] == "alice"
    assert len(set(keys.values())) == 3
    assert parse_keys("two")[digest_of("two")] == keys[digest_of("two")]


@pytest.mark.parametrize("bad", ["a:one,a:one", "x:", "one,,two", "a b", "a:\u00e9", ","])
def test_bad_keys_stop_the_start_without_being_shown(tmp_path, bad):
    message = failed_start(tmp_path, api_keys=bad)
    assert "STAGECAST_API_KEYS" in message
    assert "one" not in message.replace("alone", "")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cors_origins": "*"}, "STAGECAST_CORS_ORIGINS"),
        ({"cors_origins": "https://a.example/path"}, "STAGECAST_CORS_ORIGINS"),
        ({"stage_idle_timeouts_s": "retrieval"}, "STAGECAST_STAGE_IDLE_TIMEOUTS_S"),
        ({"stage_idle_timeouts_s": "retreival=3"}, "retreival"),
        ({"stage_idle_timeouts_s": "retrieval=0"}, "STAGECAST_STAGE_IDLE_TIMEOUTS_S"),
        ({"rate_per_minute": 0}, "STAGECAST_RATE_PER_MINUTE"),
    ],
)
def test_bad_settings_of_access_and_limits_are_named(tmp_path, settings, named):
    assert named in failed_start(tmp_path, **settings)


def test_with_keys_another_address_may_be_served(start_server, sample_database, server):
    shared = start_server("--host", "127.0.0.1", database_url=sample_database, api_keys=KEYS)
    assert httpx.get(f"{shared.url}/sessions").status_code == 401


SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def test_every_answer_has_the_security_headers_errors_included(locked, routes, hers):
    nothing = [("GET", "/nothing"), ("DELETE", "/chat"), ("OPTIONS", "/chat")]
    for (method, path), headers in itertools.product([*routes, *nothing], ({}, ALICE)):
        if method == "DELETE" and headers:
            continue
        response = request(locked, method, path, hers, headers)
        assert SECURITY.items() <= dict(response.headers).items(), (method, path)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        assert response.headers["cache-control"] == ("no-cache" if streamed else "no-store"), (method, path)


@pytest.fixture(scope="module")
def shared_origin(start_server, sample_database, server):
    return start_server(
        database_url=sample_database,
        cors_origins="https://chat.example",
        allowed_hosts="stagecast.example",
        rate_per_minute=5,
        max_streams_per_key=3,
    )


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://chat.example", True),
        ("http://chat.example", False),
        ("https://chat.example.evil", False),
        ("https://evilchat.example", False),
        ("https://chatxexample", False),
        ("null", False),
    ],
)
def test_only_origins_that_are_listed_may_read(shared_origin, origin, allowed):
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-stainless-lang",
    }
    for method, path in (("OPTIONS", "/chat"), ("GET", "/health")):
        response = httpx.request(method, f"{shared_origin.url}{path}", headers=headers)
        assert (response.headers.get("access-control-allow-origin") == origin) == allowed
        if method == "OPTIONS":
            assert ("x-stainless-lang" in response.headers.get("access-control-allow-headers", "").lower()) == allowed
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("x", 200), ("stagecast.example", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("10.0.0.1", 421), ("", 200),
    ],
)  # fmt: skip
def test_without_keys_only_names_of_this_machine_are_answered(shared_origin, host, status):
    response = httpx.get(f"{shared_origin.url}/health", headers={"Host": host})
    assert response.status_code == status
    if status == 421:
        assert "STAGECAST_ALLOWED_HOSTS" in response.json()["detail"]


def test_with_keys_any_name_is_answered(locked):
    assert httpx.get(f"{locked.url}/health", headers={"Host": "answers.example"}).status_code == 200


def test_who_asks_too_often_is_told_when_to_come_back(shared_origin):
    answers = [httpx.post(f"{shared_origin.url}/search", json={"query": "x"}) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{shared_origin.url}/sessions").status_code == 200


def test_one_owners_rate_is_not_anothers(start_server, sample_database, server, llm):
    strict = start_server(
        database_url=sample_database,
        api_keys=KEYS,
        rate_per_minute=8,
        max_streams_per_key=3,
        llm_model="openai/fake",
        llm_api_base=llm.url,
    )
    barrier = threading.Barrier(6)
    statuses = []

    def post(headers):
        with httpx.Client(timeout=30) as client:
            barrier.wait()
            body = {"message": "llm:slow"}
            with client.stream("POST", f"{strict.url}/chat", json=body, headers=headers) as reply:
                statuses.append(reply.status_code)
                if reply.status_code == 200:
                    reply.read()

    streams = [threading.Thread(target=post, args=(ALICE,)) for _ in range(6)]
    for stream in streams:
        stream.start()
    for stream in streams:
        stream.join()
    assert sorted(statuses) == [200] * 3 + [429] * 3
    for who, expected in ((ALICE, [200, 200, 429]), (BOB, [200] * 3)):
        answers = [httpx.post(f"{strict.url}/search", json={"query": "x"}, headers=who) for _ in range(3)]
        assert [answer.status_code for answer in answers] == expected
