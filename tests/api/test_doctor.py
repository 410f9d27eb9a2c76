"""``stagecast doctor`` before set-ups that are broken on purpose: each fault is named, with what to change."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import asyncpg
import httpx
import pytest

from api.doctor_url import Arrived, Probe, judged
from tests.conftest import clean_environment, free_port
from tests.faults.test_nginx import ADDRESS, DEPLOYED, nginx, site

KEY = "a-key-for-the-doctor"
PASS = f"proxy_http_version 1.1; proxy_pass http://{ADDRESS};"
BUFFERING = f"gzip on; gzip_types text/event-stream; location / {{ {PASS} proxy_ignore_headers X-Accel-Buffering; }}"
IMPATIENT = f"location / {{ {PASS} proxy_read_timeout 2s; }}"
CACHING = f"location / {{ {PASS} proxy_hide_header Cache-Control; }}"
KEYLESS = f'location / {{ {PASS} proxy_set_header Authorization ""; }}'
FORGETFUL = f'location / {{ {PASS} proxy_set_header Last-Event-ID ""; }}'
ELSEWHERE = "location / { return 200 hello; }"
MISLED = "location / { proxy_pass http://127.0.0.1:1; }"


def doctor(folder, *arguments, **settings):
    """Run the command; return its exit code and what it found, by what that is about."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor", "--json", *map(str, arguments)],
        env=clean_environment(**{"data_dir": folder / "data"} | settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {finding["what"]: finding for finding in found}


def faults(found):
    return {what: finding for what, finding in found.items() if finding["state"] == "bad"}


@contextmanager
def answering(status, body=b"{}"):
    """Run a server that answers everything alike; return its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.do_GET()

        def do_GET(self):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


# On this machine


def test_a_good_set_up_has_no_fault(tmp_path, sample_database, server):
    code, found = doctor(tmp_path, "--port", free_port(), database_url=sample_database)
    assert (code, faults(found)) == (0, {})
    assert found["collection"]["said"] == "74 documents"
    assert {"embedder", "retriever", "reranker", "llm"} <= set(found)


def test_a_server_of_ours_on_the_port_is_no_fault(tmp_path, sample_database, server):
    _, found = doctor(tmp_path, "--port", server.port, database_url=sample_database)
    assert found["port"]["state"] == "good"
    assert f"serves on {server.port} already" in found["port"]["said"]


def broken_setting(folder, url):
    return doctor(folder, sources="many", database_url=url)


def missing_plugin(folder, url):
    return doctor(folder, retriever="elastic", database_url=url)


def database_away(folder, _url):
    return doctor(folder, database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none")


def taken_port(folder, url):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return doctor(folder, "--port", taken.getsockname()[1], database_url=url)


def refused_key(folder, url):
    with answering(401, b'{"error": {"message": "Incorrect API key"}}') as llm:
        return doctor(folder, llm_model="openai/gpt", llm_api_base=f"{llm}/v1", database_url=url)


def other_embedder(folder, url):
    with answering(500) as embedder:
        return doctor(
            folder, embedding_model="openai/e", llm_api_base=embedder, embedding_dimension=8, database_url=url
        )


@pytest.mark.parametrize(
    ("broken", "what", "told"),
    [
        (broken_setting, "settings", ("STAGECAST_SOURCES", ".env")),
        (missing_plugin, "plugins", ("'elastic'; installed: hybrid", "stagecast plugins")),
        (database_away, "database", ("nobody@127.0.0.1", "STAGECAST_DATABASE_URL")),
        (taken_port, "port", ("Address already in use", "another --port")),
        (refused_key, "llm", ("key", "OPENAI_API_KEY")),
        (other_embedder, "start", ("stagecast reindex", "")),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_broken_set_up_is_named(tmp_path, sample_database, broken, what, told):
    code, found = broken(tmp_path, sample_database)
    [(where, fault)] = faults(found).items()
    said, remedy = told
    assert (code, where) == (1, what)
    assert said in fault["said"]
    assert remedy in fault["remedy"]


def test_tables_of_another_version_are_told_and_left_alone(tmp_path, new_database, sample_database):
    url = new_database()
    migrated = [sys.executable, "-m", "api.cli", "migrate"]
    environment = clean_environment(data_dir=tmp_path / "data", database_url=url)
    subprocess.run(migrated, env=environment, check=True, timeout=60, cwd=tmp_path)
    revision = "select version_num from alembic_version"
    assert execute(url, "update alembic_version set version_num = '0005' returning version_num") == "0005"
    code, found = doctor(tmp_path, database_url=url)
    assert (code, found["database"]["state"]) == (0, "note")
    assert "revision 0005" in found["database"]["said"]
    assert "stagecast migrate" in found["database"]["remedy"]
    assert execute(url, revision) == "0005"


def execute(url, statement):
    async def run():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def test_an_index_that_the_running_server_has_open_is_no_fault(tmp_path, start_server, new_database):
    settings = {"database_url": new_database(), "data_dir": tmp_path / "data", "retriever": "qdrant"}
    start_server(**settings)
    code, found = doctor(tmp_path, "--port", free_port(), **settings)
    assert (code, found["retriever"]["state"]) == (0, "note")
    assert "--url" in found["retriever"]["remedy"]


def test_findings_are_printed_for_people(tmp_path, sample_database):
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor"],
        env=clean_environment(data_dir=tmp_path / "data", retriever="elastic", database_url=sample_database),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "FAULT  plugins: no retriever named 'elastic'" in done.stdout
    assert "-> `stagecast plugins` lists what is installed" in done.stdout
    assert done.stdout.endswith("1 fault found.\n")


# Over an address


@pytest.fixture(scope="module")
def keyed(start_server, sample_database, server):
    return start_server(database_url=sample_database, api_keys=f"doctor:{KEY}", heartbeat_s=3)


def test_a_server_behind_nginx_as_it_is_deployed_has_no_fault(tmp_path, keyed):
    with nginx(tmp_path, DEPLOYED, keyed) as proxy:
        code, found = doctor(tmp_path, "--url", proxy.url, "--key", KEY)
    assert (code, faults(found)) == (0, {})
    assert {"ready", "key", "uploads", "headers", "buffering", "resuming", "silence"} <= set(found)


@pytest.mark.parametrize(
    ("location", "what", "remedy"),
    [
        (BUFFERING, "buffering", "proxy_buffering off"),
        (IMPATIENT, "silence", "proxy_read_timeout"),
        (CACHING, "headers", "pass the server's headers on"),
        (FORGETFUL, "resuming", "?after=N"),
        (KEYLESS, "key", "takes the header Authorization away"),
        (ELSEWHERE, "server", "not that of a Stagecast server"),
        (MISLED, "server", "may not reach the server behind it"),
    ],
)
def test_what_a_proxy_does_wrong_is_named(tmp_path, keyed, location, what, remedy):
    large = "client_max_body_size 200m; "
    with nginx(tmp_path, site(large + location), keyed) as proxy:
        code, found = doctor(tmp_path, "--url", proxy.url, "--key", KEY)
    [(where, fault)] = faults(found).items()
    assert (code, where) == (1, what)
    assert remedy in fault["remedy"]


def test_a_proxy_that_takes_only_small_requests_is_named(tmp_path, keyed):
    with nginx(tmp_path, site(f"location / {{ {PASS} }}"), keyed) as proxy:
        _, found = doctor(tmp_path, "--url", proxy.url, "--key", KEY)
    assert list(faults(found)) == ["uploads"]
    assert "client_max_body_size" in found["uploads"]["remedy"]


def test_an_address_where_nothing_listens_is_named(tmp_path):
    code, found = doctor(tmp_path, "--url", f"http://127.0.0.1:{free_port()}")
    assert (code, list(found)) == (1, ["server"])
    assert "no answer from" in found["server"]["said"]


@pytest.mark.parametrize("url", ["http://host:80a", "http://[::1", "nonsense"])
def test_an_address_that_is_none_is_named(tmp_path, url):
    code, found = doctor(tmp_path, "--url", url)
    assert (code, list(found)) == (1, ["server"])


def test_a_key_with_odd_characters_is_named_and_not_shown(tmp_path, keyed):
    code, found = doctor(tmp_path, "--url", keyed.url, "--key", f"{KEY}\u2011\r")
    assert (code, list(found)) == (1, ["key"])
    assert KEY not in str(found)


def test_a_wrong_key_is_named(tmp_path, keyed):
    _, found = doctor(tmp_path, "--url", keyed.url, "--key", "another")
    assert "the key is not known" in found["key"]["said"]
    assert "--key" in found["key"]["remedy"]
    _, found = doctor(tmp_path, "--url", keyed.url)
    assert "is needed" in found["key"]["said"]


def test_the_probe_needs_a_key_like_every_route(keyed):
    assert httpx.get(f"{keyed.url}/health/probe").status_code == 401


def events(*moments, first=3):
    return [Arrived(n, sent, came) for n, (sent, came) in enumerate(moments, first)]


@pytest.mark.parametrize(
    ("moments", "state"),
    [
        ([(n * 0.05, 50 + n * 0.05) for n in range(18)], "good"),  # another clock
        ([(n * 0.05, 50 + n * 0.05 + 0.2 * (n % 3 == 0)) for n in range(18)], "good"),  # a slow line
        ([(n * 0.05, 50.9) for n in range(18)], "bad"),
    ],
)
def test_events_that_come_all_at_once_were_held_back(moments, state):
    headers = httpx.Headers({"content-type": "text/event-stream", "cache-control": "no-cache"})
    probe = Probe(headers, events(*moments), count=20)
    assert {finding.what: finding.state for finding in judged(probe)}["buffering"] == state
