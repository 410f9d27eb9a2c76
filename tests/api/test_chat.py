"""Questions over HTTP, to a real server with the sample collection and no LLM."""

import json
import time
import uuid

import httpx
import pytest

from tests.conftest import answer_of, ask, first

QUESTION = "What are the side effects of aripiprazole?"
ORDER = [
    "run_start",
    "retrieval_start",
    "retrieval_complete",
    "reranking_start",
    "reranking_complete",
    "sources",
    "generation_start",
    "token",
    "generation_complete",
    "done",
]


def test_a_question_is_answered_in_the_order_of_the_contract(server):
    kinds = [event["type"] for event in ask(server, QUESTION)]
    assert [kind for n, kind in enumerate(kinds) if n == 0 or kinds[n - 1] != kind] == ORDER


def test_the_answer_names_the_adverse_effects_and_cites_passages_that_do(server):
    events = ask(server, QUESTION)
    answer = answer_of(events)
    sources = {source["n"]: source for source in first(events, "sources")["sources"]}
    assert "akathisia" in answer
    assert "nausea" in answer
    assert sources[1]["document_id"] == "aripiprazole"
    assert "[1]" in answer
    assert first(events, "generation_start")["model"] == "extractive"


def test_the_first_token_of_a_quoted_answer_comes_soon(server):
    events = ask(server, QUESTION)
    assert first(events, "generation_complete")["first_token_ms"] < 1000
    assert first(events, "generation_complete")["token_count"] == sum(event["type"] == "token" for event in events)


def test_what_the_collection_does_not_answer_is_refused(server):
    events = ask(server, "What is the capital of Australia?")
    assert "could not find" in answer_of(events)
    assert first(events, "generation_complete")["finish_reason"] == "no_sources"
    assert first(events, "sources")["sources"] == []


def test_the_stream_has_the_headers_that_keep_proxies_from_holding_it_back(server):
    with httpx.stream("POST", f"{server.url}/chat", json={"message": QUESTION}) as response:
        response.read()
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"stream": False}, {}),
        ({}, {"Accept": "application/json"}),
        ({}, {"Accept": "application/json, text/plain, */*"}),
    ],
)
def test_the_same_run_can_be_had_as_one_object(server, body, headers):
    response = httpx.post(f"{server.url}/chat", json={"message": QUESTION, **body}, headers=headers, timeout=30)
    answer = response.json()
    assert response.status_code == 200
    assert list(answer) == [
        "run_id", "session_id", "message_id", "status", "answer", "sources", "stages", "elapsed_ms", "finish_reason",
    ]  # fmt: skip
    assert answer["status"] == "completed"
    assert "akathisia" in answer["answer"]
    assert httpx.get(f"{server.url}/runs/{answer['run_id']}").json() == answer


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"stream": True}, {"Accept": "application/json"}),
        ({}, {"Accept": "*/*"}),
        ({}, {"Accept": "text/event-stream"}),
    ],
)
def test_a_stream_is_what_most_clients_get(server, body, headers):
    with httpx.stream("POST", f"{server.url}/chat", json={"message": "x", **body}, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("accept", ["*/*;q=inf", "text/event-stream;q=x", ";;;", "\u00e9"])
def test_an_odd_accept_header_gets_a_stream(server, accept):
    with httpx.stream(
        "POST", f"{server.url}/chat", json={"message": "x"}, headers={"Accept": accept.encode()}
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")


def test_the_stored_run_is_what_was_streamed(server):
    events = ask(server, QUESTION)
    done = first(events, "done")
    stored = httpx.get(f"{server.url}/runs/{done['run_id']}").json()
    assert stored["answer"] == answer_of(events)
    assert stored["stages"] == done["stages"]
    assert stored["elapsed_ms"] == done["elapsed_ms"]
    assert stored["message_id"] == done["message_id"]
    assert stored["sources"] == first(events, "sources")["sources"]
    assert done["stages"]["retrieval"]["elapsed_ms"] == first(events, "retrieval_complete")["elapsed_ms"]


def test_the_log_has_the_same_times_and_no_text_of_the_question(server):
    canary = f"canary{uuid.uuid4().hex}"
    events = ask(server, f"{QUESTION} {canary}")
    run_id = first(events, "run_start")["run_id"]
    lines = [line for line in server.log_lines() if line.get("run_id") == run_id]
    stages = {line["stage"]: line["elapsed_ms"] for line in lines if line["event"] == "stage.complete"}
    assert stages == {name: took["elapsed_ms"] for name, took in first(events, "done")["stages"].items()}
    finished = [line for line in lines if line["event"] == "run.complete"]
    assert [line["elapsed_ms"] for line in finished] == [first(events, "done")["elapsed_ms"]]
    assert finished[0]["token_count"] > 0
    assert canary not in server.log_path.read_text()


@pytest.mark.parametrize("session_id", [str(uuid.uuid4()), "test-session-123", "a.b:c_d"])
def test_a_session_id_of_the_clients_own_is_kept(server, session_id):
    assert first(ask(server, "x", session_id=session_id), "run_start")["session_id"] == session_id


@pytest.mark.parametrize("extra", [{}, {"session_id": None}])
def test_without_a_session_id_the_server_makes_one(server, extra):
    assert uuid.UUID(first(ask(server, "x", **extra), "run_start")["session_id"])


def test_only_passages_with_the_asked_metadata_are_used(server):
    events = ask(server, "restlessness", filters={"kind": "condition"})
    found = {source["document_id"] for source in first(events, "sources")["sources"]}
    assert "akathisia" in found
    assert "aripiprazole" not in found


def test_run_start_comes_before_any_stage_has_worked(server):
    with httpx.stream("POST", f"{server.url}/chat", json={"message": QUESTION}) as response:
        begun = time.monotonic()
        line = next(line for line in response.iter_lines() if line.startswith("data: "))
        assert json.loads(line[6:])["type"] == "run_start"
        assert time.monotonic() - begun < 1


def test_an_unknown_run_is_not_found(server):
    response = httpx.get(f"{server.url}/runs/none")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
