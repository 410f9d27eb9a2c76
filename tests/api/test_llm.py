"""Questions answered by an LLM, whose far end is a real server that speaks the protocol and fails when asked to."""

import json
import time
import uuid

import httpx
import pytest

from tests.conftest import answer_of, ask, first
from tests.faulty_llm import TOKENS


def asked(llm, marker):
    """Return the request that the far end got for a question with this marker in it."""
    return next(r for r in reversed(llm.requests) if marker in r["messages"][-1]["content"])


def test_every_piece_of_the_models_answer_is_a_token_of_its_own(either_server):
    events = ask(either_server, "What is aripiprazole?")
    assert [event["content"] for event in events if event["type"] == "token"] == TOKENS
    assert first(events, "generation_start")["model"] == "openai/fake"
    assert first(events, "generation_complete")["finish_reason"] == "stop"


def test_tokens_arrive_one_by_one_as_the_model_writes_them(either_server):
    arrived = []
    with httpx.stream("POST", f"{either_server.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
        for line in response.iter_lines():
            if '"type":"token"' in line:
                arrived.append(time.monotonic())
    assert len(arrived) == 200
    assert arrived[-1] - arrived[0] > 3.5


def test_the_model_is_given_the_numbered_passages_and_the_rules(either_server, llm):
    marker = uuid.uuid4().hex
    ask(either_server, f"What are the side effects of aripiprazole? {marker}")
    request = asked(llm, marker)
    system = request["messages"][0]["content"]
    assert "[1] Aripiprazole" in system
    assert "akathisia" in system
    assert "could not find an answer" in system
    assert request["stream"] is True
    assert set(request) <= {"model", "messages", "stream", "stream_options", "temperature", "max_tokens"}


def test_the_conversation_so_far_is_in_the_prompt(either_server, llm):
    session = f"talk-{uuid.uuid4()}"
    ask(either_server, "What is aripiprazole?", session_id=session)
    marker = uuid.uuid4().hex
    ask(either_server, f"And in children? {marker}", session_id=session)
    turns = [(m["role"], m["content"]) for m in asked(llm, marker)["messages"][1:]]
    assert turns[:2] == [("user", "What is aripiprazole?"), ("assistant", "".join(TOKENS))]


def test_what_the_model_counted_is_in_the_log(either_server):
    run_id = first(ask(either_server, "aripiprazole"), "run_start")["run_id"]
    line = next(
        line for line in either_server.log_lines() if line.get("run_id") == run_id and line["event"] == "run.complete"
    )
    assert (line["prompt_tokens"], line["completion_tokens"]) == (11, 7)
    assert line["first_token_ms"] > 0


def test_a_failing_model_is_asked_three_times_at_most(either_server, llm):
    marker = uuid.uuid4().hex
    ask(either_server, f"llm:status503 {marker}")
    assert sum(marker in request["messages"][-1]["content"] for request in llm.requests) == 3


def test_citations_that_name_no_passage_are_dropped(either_server):
    assert answer_of(ask(either_server, "aripiprazole llm:citations")) == "It helps [1] and."


def test_what_could_not_be_stored_is_cleaned(either_server):
    events = ask(either_server, "llm:garbled")
    assert answer_of(events) == "ab\U0001f600 \ufffd end"
    stored = httpx.get(f"{either_server.url}/runs/{first(events, 'run_start')['run_id']}").json()
    assert stored["answer"] == answer_of(events)


def test_the_models_own_word_for_its_end_is_passed_on(either_server):
    assert first(ask(either_server, "llm:length"), "generation_complete")["finish_reason"] == "length"


def test_an_empty_answer_is_an_answer(either_server):
    events = ask(either_server, "llm:empty")
    assert events[-1]["type"] == "done"
    assert first(events, "generation_complete")["first_token_ms"] is None


@pytest.mark.parametrize(
    ("mode", "code", "retryable"),
    [
        ("truncated", "UPSTREAM_TRUNCATED", True),
        ("status400", "GENERATION_ERROR", False),
        ("status401", "GENERATION_ERROR", False),
        ("status404", "GENERATION_ERROR", False),
        ("status500", "GENERATION_ERROR", True),
    ],
)
def test_a_failing_model_is_an_error_event_without_its_text(either_server, mode, code, retryable):
    events = ask(either_server, f"llm:{mode}")
    error = events[-1]["content"]
    assert events[-1]["type"] == "error"
    assert (error["code"], error["stage"], error["retryable"]) == (code, "generation", retryable)
    assert "secret" not in json.dumps(events)
    assert "secret" not in either_server.log_path.read_text()


def test_a_failed_run_is_a_problem_when_one_object_was_asked_for(either_server):
    response = httpx.post(f"{either_server.url}/chat", json={"message": "llm:truncated", "stream": False}, timeout=30)
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "UPSTREAM_TRUNCATED"
    stored = httpx.get(f"{either_server.url}/runs/{response.json()['run_id']}").json()
    assert (stored["status"], stored["answer"]) == ("error", "".join(TOKENS[:3]))


@pytest.fixture(scope="module")
def impatient(start_server, sample_database, server, llm):
    """Lend a server that gives a model one second."""
    limits = {"idle_timeout_s": 1.5, "first_token_timeout_s": 1, "heartbeat_s": 0.1}
    return start_server(database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url, **limits)


@pytest.mark.parametrize(
    ("mode", "code", "tokens"),
    [("silent", "GENERATION_ERROR", 0), ("stall", "IDLE_TIMEOUT", 3), ("drip", "IDLE_TIMEOUT", 1)],
)
def test_a_model_that_says_nothing_is_given_up_and_closed(impatient, llm, mode, code, tokens):
    before = len(llm.closed_at)
    events = ask(impatient, f"llm:{mode}")
    assert events[-1]["content"]["code"] == code
    assert sum(event["type"] == "token" for event in events) == tokens
    deadline = time.monotonic() + 2
    while len(llm.closed_at) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(llm.closed_at) == before + 1


def test_heartbeats_are_comments_without_an_id(impatient):
    with httpx.stream("POST", f"{impatient.url}/chat", json={"message": "llm:silent"}, timeout=30) as response:
        text = response.read().decode()
    assert "\n: \n\n" in text


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_model_and_keeps_what_was_said(either_server, llm, stream):
    session = f"left-{uuid.uuid4()}"
    before = len(llm.closed_at)
    body = {"message": "llm:slow", "session_id": session, "stream": stream}
    with httpx.Client(timeout=httpx.Timeout(30, read=0.7)) as client:
        try:
            with client.stream("POST", f"{either_server.url}/chat", json=body) as response:
                for line in response.iter_lines():
                    if '" w5"' in line:
                        break
        except httpx.ReadTimeout:
            assert not stream
    left = time.monotonic()
    while len(llm.closed_at) == before and time.monotonic() < left + 2:
        time.sleep(0.002)
    assert llm.closed_at[-1] - left < 1
    marker = uuid.uuid4().hex
    ask(either_server, f"aripiprazole {marker}", session_id=session)
    turns = asked(llm, marker)["messages"]
    assert [m["role"] for m in turns] == ["system", "user", "assistant", "user"]
    assert turns[2]["content"].startswith(" w0 w1 w2")
    assert any(line["event"] == "Stream cancelled by client" for line in either_server.log_lines())


def test_the_llm_openai_answers(start_server, llm, sample_database):
    server = start_server(database_url=sample_database, llm="openai", llm_model="openai/fake", llm_api_base=llm.url)
    assert answer_of(ask(server, "What is aripiprazole?")) == "".join(TOKENS)
