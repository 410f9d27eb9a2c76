"""Runs watched again, replayed, stopped; sessions that are busy; requests that are repeated."""

import asyncio
import json
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx
import pytest

from api.storage.runs import storable
from tests.conftest import answer_of, ask, first, read_events

QUESTION = "What are the side effects of aripiprazole?"


def raw_events(server, run_id, **options):
    with httpx.stream("GET", f"{server.url}/runs/{run_id}/events", timeout=30, **options) as response:
        return response.status_code, response.read()


def begun(server, message="llm:slow", **body):
    """Start a run, leave when its first tokens are here, and return its id and what was read."""
    with httpx.stream("POST", f"{server.url}/chat", json={"message": message, **body}, timeout=30) as response:
        assert response.status_code == 200, response.read()
        read = ""
        for line in response.iter_lines():
            read += line + "\n"
            if '" w3"' in line:
                break
    return json.loads(read.split("data: ")[1].split("\n")[0])["content"]["run_id"], read


def fetch(url, query, *arguments):
    async def run():
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    return asyncio.run(run())


def wait_for(server, run_id, *statuses):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = httpx.get(f"{server.url}/runs/{run_id}").json()
        if found.get("status") in statuses:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{run_id} is {found}")


def test_a_finished_run_is_replayed_byte_for_byte(server):
    with httpx.stream("POST", f"{server.url}/chat", json={"message": QUESTION}) as response:
        sent = response.read()
    run_id = json.loads(sent.split(b"data: ")[1].split(b"\n")[0])["content"]["run_id"]
    assert raw_events(server, run_id) == (200, sent)


def test_resuming_behind_any_event_gives_exactly_the_rest(server):
    with httpx.stream("POST", f"{server.url}/chat", json={"message": "What triggers migraine?"}) as response:
        sent = response.read()
    frames = [frame + b"\n\n" for frame in sent.split(b"\n\n")[:-1]]
    run_id = json.loads(frames[0].split(b"data: ")[1])["content"]["run_id"]
    for seen in range(0, len(frames), 7):
        assert raw_events(server, run_id, headers={"Last-Event-ID": str(seen)})[1] == b"".join(frames[seen:])
        assert raw_events(server, run_id, params={"after": seen})[1] == b"".join(frames[seen:])


def test_whoever_has_seen_everything_is_told_not_to_come_back(server):
    events = ask(server, QUESTION)
    run_id = first(events, "run_start")["run_id"]
    assert raw_events(server, run_id, headers={"Last-Event-ID": str(len(events))}) == (204, b"")


def test_the_header_counts_more_than_the_address(server):
    run_id = first(ask(server, QUESTION), "run_start")["run_id"]
    _, rest = raw_events(server, run_id, headers={"Last-Event-ID": "5"}, params={"after": 1})
    assert rest.startswith(b"id: 6\n")


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "", "\u0663"])
def test_a_last_event_id_that_is_no_number_is_refused(server, bad):
    run_id = first(ask(server, QUESTION), "run_start")["run_id"]
    status, body = raw_events(server, run_id, headers={"Last-Event-ID": bad.encode()})
    assert status == 400
    assert b"Last-Event-ID" in body


@pytest.mark.parametrize(("method", "path"), [("GET", "/runs/none/events"), ("POST", "/runs/none/cancel")])
def test_an_unknown_run_is_not_found(server, method, path):
    response = httpx.request(method, f"{server.url}{path}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_two_readers_see_the_same(llm_server):
    seen = []
    run_ids: list[str] = []

    def reader():
        seen.append(raw_events(llm_server, run_ids[0])[1])

    with httpx.stream("POST", f"{llm_server.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
        sent = b""
        for chunk in response.iter_raw():
            sent += chunk
            if not run_ids and b'" w3"' in sent:
                run_ids.append(json.loads(sent.split(b"data: ")[1].split(b"\n")[0])["content"]["run_id"])
                second = threading.Thread(target=reader)
                second.start()
    second.join(20)
    assert seen == [sent]


def test_a_run_that_is_to_continue_outlives_its_reader_and_can_be_resumed(llm_server):
    run_id, read = begun(llm_server, on_disconnect="continue")
    time.sleep(0.3)
    seen = read.count("id: ")
    with httpx.stream(
        "GET", f"{llm_server.url}/runs/{run_id}/events", headers={"Last-Event-ID": str(seen)}
    ) as response:
        rest = response.read().decode()
    assert rest.startswith(f"id: {seen + 1}\n")
    whole = raw_events(llm_server, run_id)[1].decode()
    assert whole.endswith(rest)
    assert httpx.get(f"{llm_server.url}/runs/{run_id}").json()["answer"] == "".join(f" w{n}" for n in range(200))


def test_nobody_coming_back_in_time_ends_it(start_server, sample_database, server, llm):
    hasty = start_server(
        database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url, resume_grace_s=0.3
    )
    run_id, _ = begun(hasty, on_disconnect="continue")
    assert wait_for(hasty, run_id, "cancelled")["answer"].startswith(" w0 w1")


def test_a_stop_ends_the_run_keeps_the_answer_and_can_be_repeated(llm_server, llm):
    run_id, _ = begun(llm_server, on_disconnect="continue")
    closed = len(llm.closed_at)
    asked = time.monotonic()
    stopped = httpx.post(f"{llm_server.url}/runs/{run_id}/cancel").json()
    assert stopped["status"] == "cancelled"
    assert stopped["answer"].startswith(" w0 w1 w2")
    assert httpx.post(f"{llm_server.url}/runs/{run_id}/cancel").json() == stopped
    while len(llm.closed_at) == closed and time.monotonic() < asked + 2:
        time.sleep(0.002)
    assert llm.closed_at[-1] - asked < 1
    last = raw_events(llm_server, run_id)[1].decode().split("data: ")[-1]
    assert json.loads(last)["type"] == "cancelled"


def test_stopping_a_finished_run_changes_nothing(server):
    run_id = first(ask(server, QUESTION), "run_start")["run_id"]
    before = httpx.get(f"{server.url}/runs/{run_id}").json()
    assert httpx.post(f"{server.url}/runs/{run_id}/cancel").json() == before
    assert before["status"] == "completed"


def test_of_fifty_posts_to_one_session_one_is_accepted(llm_server):
    body = {"message": "llm:slow", "session_id": f"busy-{uuid.uuid4()}", "on_disconnect": "continue"}
    barrier = threading.Barrier(50)

    def post(_):
        with httpx.Client(timeout=30) as client:
            barrier.wait()
            with client.stream("POST", f"{llm_server.url}/chat", json=body) as response:
                if response.status_code == 200:
                    return 200, next(response.iter_lines())
                return response.status_code, json.loads(response.read())

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert sorted(status for status, _ in answers) == [200] + [409] * 49
    [run_id] = {problem["run_id"] for status, problem in answers if status == 409}
    assert httpx.post(f"{llm_server.url}/runs/{run_id}/cancel").json()["status"] == "cancelled"


def test_a_busy_session_can_be_taken_over(llm_server):
    session = f"over-{uuid.uuid4()}"
    run_id, _ = begun(llm_server, session_id=session, on_disconnect="continue")
    events = ask(llm_server, "aripiprazole", session_id=session, if_busy="cancel")
    assert events[-1]["type"] == "done"
    assert httpx.get(f"{llm_server.url}/runs/{run_id}").json()["status"] == "cancelled"


def test_the_same_key_twenty_times_at_once_is_one_run(llm_server, sample_database):
    session = f"once-{uuid.uuid4()}"
    key = {"Idempotency-Key": uuid.uuid4().hex}
    barrier = threading.Barrier(20)

    def post(_):
        with httpx.Client(timeout=30) as client:
            barrier.wait()
            body = {"message": "aripiprazole", "session_id": session}
            with client.stream("POST", f"{llm_server.url}/chat", json=body, headers=key) as response:
                assert response.status_code == 200, response.read()
                return answer_of(read_events(response)), response.status_code

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(post, range(20)))
    assert len(answers) == 1
    rows = fetch(sample_database, "select role from message where session_id = $1 order by number", session)
    assert [row["role"] for row in rows] == ["user", "assistant"]
    other = httpx.post(f"{llm_server.url}/chat", json={"message": "other", "session_id": session}, headers=key)
    assert other.status_code == 422


def test_events_are_gone_after_their_retention(server, sample_database):
    run_id = first(ask(server, QUESTION), "run_start")["run_id"]
    fetch(sample_database, "update run set finished_at = now() - interval '2 days' where id = $1", run_id)
    deadline = time.monotonic() + 20
    while raw_events(server, run_id)[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert raw_events(server, run_id)[0] == 410
    assert httpx.get(f"{server.url}/runs/{run_id}").json()["status"] == "completed"


def test_a_killed_servers_runs_are_closed_by_the_next_and_replayed_after_it(start_server, llm):
    settings = {"llm_model": "openai/fake", "llm_api_base": llm.url}
    doomed = start_server(**settings)
    data = doomed.log_path.parent / "data"
    finished = ask(doomed, "aripiprazole")
    sent = raw_events(doomed, first(finished, "run_start")["run_id"])
    session = f"lost-{uuid.uuid4()}"
    run_id, _ = begun(doomed, session_id=session, on_disconnect="continue")
    doomed.stop(signal.SIGKILL)
    heir = start_server(data_dir=data, **settings)
    assert raw_events(heir, first(finished, "run_start")["run_id"]) == sent
    lost = wait_for(heir, run_id, "error")
    assert lost["error"]["code"] == "WORKER_LOST"
    status, rest = raw_events(heir, run_id, headers={"Last-Event-ID": "9"})
    assert status == 200
    assert rest.startswith(b'id: 10\ndata: {"type":"error"')
    assert raw_events(heir, run_id, headers={"Last-Event-ID": "10"}) == (204, b"")
    events = ask(heir, "aripiprazole", session_id=session)
    assert events[-1]["type"] == "done"
    asked = llm.requests[-1]["messages"]
    assert ("user", "llm:slow") in [(m["role"], m["content"]) for m in asked]


@pytest.fixture(scope="module")
def narrow(start_server, sample_database, server, llm):
    """Lend a server that answers one question at a time of each caller."""
    return start_server(
        database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url, max_streams_per_key=1
    )


def test_at_its_limit_a_caller_may_still_repeat_a_request_or_replace_its_own(narrow):
    key, session_id = {"Idempotency-Key": uuid.uuid4().hex}, f"narrow-{uuid.uuid4()}"
    body = {"message": "llm:slow", "session_id": session_id, "on_disconnect": "continue"}
    with httpx.stream("POST", f"{narrow.url}/chat", json=body, headers=key, timeout=30) as response:
        lines = response.iter_lines()
        run_id = json.loads(next(line for line in lines if "run_start" in line)[6:])["content"]["run_id"]
        assert httpx.post(f"{narrow.url}/chat", json={"message": "x"}).status_code == 429
        with httpx.stream("POST", f"{narrow.url}/chat", json=body, headers=key, timeout=30) as again:
            assert again.status_code == 200
            assert run_id in next(line for line in again.iter_lines() if "run_start" in line)
        assert ask(narrow, "aripiprazole", session_id=session_id, if_busy="cancel")[-1]["type"] == "done"
    assert wait_for(narrow, run_id, "cancelled")


def test_what_postgresql_refuses_is_taken_out_before_it_is_stored():
    given = {"a\0": "b\0\ud800", "n": float("nan"), "big": 2**40, "list": [float("inf"), True, None, -(2**40)]}
    assert storable(given) == {
        "a": "b\ufffd", "n": 0.0, "big": 2**31 - 1, "list": [0.0, True, None, -(2**31 - 1)],
    }  # fmt: skip


def test_a_question_that_was_stored_but_never_begun_may_be_asked_again_with_its_key(server, sample_database):
    """As after a database that froze while it committed: the client was told to come back, and does."""
    body, key = {"message": "What is aripiprazole?", "session_id": f"again-{uuid.uuid4()}"}, uuid.uuid4().hex
    first_run = first(ask(server, headers={"Idempotency-Key": key}, **body), "run_start")["run_id"]
    worker = fetch(sample_database, "select worker from run where id = $1", first_run)[0]["worker"]
    unbegun = f"unbegun-{uuid.uuid4().hex}"
    fetch(sample_database, "update run set idempotency_key = null where id = $1", first_run)
    fetch(
        sample_database,
        """insert into run (id, owner, session_id, message_id, status, worker, idempotency_key, request_digest)
           select $1, owner, session_id, $1 || '-m', 'running', $2, $3, request_digest from run where id = $4""",
        unbegun, worker, key, first_run,
    )  # fmt: skip
    wait_for(server, unbegun, "error")
    again = ask(server, headers={"Idempotency-Key": key}, **body)
    assert again[-1]["type"] == "done"
    assert raw_events(server, unbegun)[1].startswith(b'id: 1\ndata: {"type":"error"')
