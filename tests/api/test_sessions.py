"""Conversations over HTTP."""

import time
import uuid

import httpx
import pytest

from tests.api.test_runs import begun
from tests.conftest import answer_of, ask, first

QUESTION = "What are the side effects of aripiprazole?"


def session():
    return f"session-{uuid.uuid4()}"


def get(server, path):
    return httpx.get(f"{server.url}{path}")


def test_a_conversation_is_listed_with_a_title_from_its_first_question(server):
    name = session()
    ask(server, f"{QUESTION}\n {'word ' * 40}", session_id=name)
    ask(server, "Another question", session_id=name)
    newest = get(server, "/sessions?limit=1").json()["sessions"][0]
    assert newest["id"] == name
    assert newest["title"].startswith("What are the side effects of aripiprazole? word")
    assert newest["title"].endswith("…")
    assert len(newest["title"]) <= 80
    assert newest["messages"] == 4
    assert newest["running"] is None
    assert get(server, f"/sessions/{name}").json() == newest


def test_its_messages_are_read_in_order_answers_with_their_sources(server):
    name = session()
    events = ask(server, QUESTION, session_id=name)
    page = get(server, f"/sessions/{name}/messages").json()
    question, answer = page["messages"]
    assert (question["role"], question["content"], question["sources"]) == ("user", QUESTION, [])
    assert (answer["role"], answer["content"], answer["status"]) == ("assistant", answer_of(events), "completed")
    assert answer["sources"] == first(events, "sources")["sources"]
    assert answer["id"] == first(events, "done")["message_id"]
    assert page["total"] == 2
    assert get(server, f"/sessions/{name}/messages?limit=1&offset=1").json()["messages"] == [answer]


def test_an_answer_that_failed_is_in_the_history_marked(llm_server):
    name = session()
    ask(llm_server, "llm:truncated", session_id=name)
    deadline = time.monotonic() + 5
    while get(llm_server, f"/sessions/{name}").json()["messages"] < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    _, answer = get(llm_server, f"/sessions/{name}/messages").json()["messages"]
    assert answer["status"] == "error"
    assert answer["content"] == "Hello from the"
    assert answer["error"]["code"] == "UPSTREAM_TRUNCATED"


def test_a_conversation_can_be_renamed(server):
    name = session()
    ask(server, QUESTION, session_id=name)
    renamed = httpx.patch(f"{server.url}/sessions/{name}", json={"title": " About \n aripiprazole "})
    assert renamed.json()["title"] == "About aripiprazole"
    assert get(server, f"/sessions/{name}").json()["title"] == "About aripiprazole"


@pytest.mark.parametrize("body", [{}, {"title": " "}, {"title": "x" * 201}, {"title": 7}, {"title": "x", "id": "y"}])
def test_a_bad_title_is_refused_by_name(server, body):
    name = session()
    ask(server, "x", session_id=name)
    refused = httpx.patch(f"{server.url}/sessions/{name}", json=body)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] in {"title", "id"}


def test_a_deleted_conversation_is_gone_with_its_runs(llm_server):
    name = session()
    run_id, _ = begun(llm_server, session_id=name, on_disconnect="continue")
    assert get(llm_server, f"/sessions/{name}").json()["running"] == run_id
    assert httpx.delete(f"{llm_server.url}/sessions/{name}").status_code == 204
    for path in (f"/sessions/{name}", f"/sessions/{name}/messages", f"/runs/{run_id}", f"/runs/{run_id}/events"):
        assert get(llm_server, path).status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/messages"), ("DELETE", ""), ("PATCH", "")])
def test_an_unknown_conversation_is_not_found(server, method, path):
    body = {"title": "x"} if method == "PATCH" else None
    response = httpx.request(method, f"{server.url}/sessions/none{path}", json=body)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
