"""``stagecast runs`` and ``stagecast replay``: stored runs listed, streamed again, and run again with another part."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from api.rerun import Given, answer_difference, first_stage, parse_changes, ranks
from pipeline.errors import BadSetting
from pipeline.ports import Message, Passage, Run
from pipeline.recording import MAX_HISTORY_CHARS, Left, decode, encode, recorded
from tests.conftest import answer_of, ask, clean_environment, first, installed

QUESTION = "What are the side effects of aripiprazole?"
ENTRY_POINTS = "[stagecast.rerankers]\nbackwards = stagecast_backwards:Backwards\n"


@pytest.fixture(scope="module")
def stagecast(sample_database, server, tmp_path_factory):
    """Return a function that runs a command on the sample database; a reranker ``backwards`` is installed."""
    folder = tmp_path_factory.mktemp("command")
    module = Path(__file__).parent / "stagecast_backwards.py"
    path = installed(folder, module, ENTRY_POINTS)

    def run(*arguments, code=0, **settings):
        environment = clean_environment(database_url=sample_database, data_dir=folder / "data", **settings)
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *map(str, arguments)],
            env=environment | {"PYTHONPATH": str(path)},
            cwd=folder,
            capture_output=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


@pytest.fixture(scope="module")
def run_id(server):
    return first(ask(server, QUESTION, session_id=f"r-{uuid.uuid4()}"), "run_start")["run_id"]


def rows(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_runs_are_listed_latest_first_with_how_they_ended(stagecast, server, run_id):
    question = f"What is lithium? {uuid.uuid4()}"
    events = ask(server, question)
    latest, *_ = listed = rows(stagecast("runs", "--json", "--limit", 1000))
    assert latest["run_id"] == first(events, "run_start")["run_id"]
    assert latest["question"] == question
    assert (latest["status"], latest["token_count"]) == ("completed", len([e for e in events if e["type"] == "token"]))
    assert latest["elapsed_ms"] == events[-1]["content"]["elapsed_ms"]
    assert run_id in [row["run_id"] for row in listed[1:]]
    table = stagecast("runs", "--limit", 1).stdout.decode()
    assert latest["run_id"][:12] in table
    assert "What is lithium?" in table


def test_runs_are_listed_by_status_and_owner(stagecast, run_id):
    assert {row["status"] for row in rows(stagecast("runs", "--json", "--status", "completed"))} == {"completed"}
    assert b"There is no such run." in stagecast("runs", "--owner", "nobody").stdout


def test_a_replayed_run_is_the_same_byte_for_byte(stagecast, server, run_id):
    sent = httpx.get(f"{server.url}/runs/{run_id}/events").content
    assert stagecast("replay", run_id, "--sse", "--speed", 0).stdout == sent
    assert stagecast("replay", run_id[:12], "--sse", "--speed", 0).stdout == sent


def test_a_replayed_run_is_shown_like_an_answer(stagecast, server, run_id):
    done = stagecast("replay", run_id)
    answer = httpx.get(f"{server.url}/runs/{run_id}").json()["answer"]
    assert done.stdout.decode() == answer + "\n"
    assert b"retrieval: " in done.stderr


def test_a_replay_takes_as_long_as_the_run_divided_by_the_speed(stagecast, llm_server):
    slow = first(ask(llm_server, "llm:slow"), "run_start")["run_id"]
    took = {}
    for speed in (0, 1):
        begun = time.monotonic()
        stagecast("replay", slow, "--speed", speed)
        took[speed] = time.monotonic() - begun
    assert took[1] - took[0] > 1  # of 4 s: two starts of Python are compared as well


def test_another_reranker_shows_what_it_changes(stagecast, run_id):
    done = stagecast("replay", run_id, "--with", "reranker=backwards", "--json")
    difference = json.loads(done.stdout)
    was, now = difference["was"], difference["now"]
    assert difference["run_from"] == "reranking"
    assert was["status"] == now["status"] == "completed"
    assert len(was["passages"]) == len(now["passages"]) == 8
    assert was["passages"] != now["passages"]
    assert was["answer"] != now["answer"]
    assert set(was["stages"]) == {"retrieval", "reranking", "generation"}
    assert set(now["stages"]) == {"reranking", "generation"}, "a stage before the change was run again"
    shown = stagecast("replay", run_id, "--with", "reranker=backwards").stdout.decode()
    assert "run again from reranking with reranker=backwards: completed" in shown
    assert was["passages"][0]["title"] in shown


def test_the_same_reranker_changes_nothing(stagecast, run_id):
    difference = json.loads(stagecast("replay", run_id, "--with", "reranker=flashrank", "--json").stdout)
    assert difference["was"]["passages"] == difference["now"]["passages"]
    assert difference["was"]["answer"] == difference["now"]["answer"]
    assert "The answer is the same." in stagecast("replay", run_id, "--with", "reranker=flashrank").stdout.decode()


def test_another_llm_answers_from_the_recorded_passages(stagecast, llm, run_id):
    settings = {"llm_model": "openai/fake", "llm_api_base": llm.url}
    difference = json.loads(stagecast("replay", run_id, "--with", "llm=litellm", "--json", **settings).stdout)
    assert difference["run_from"] == "generation"
    assert difference["was"]["passages"] == difference["now"]["passages"]
    assert set(difference["now"]["stages"]) == {"generation"}


def test_a_follow_up_is_run_again_with_its_conversation(stagecast, server):
    session = f"r-{uuid.uuid4()}"
    ask(server, "What is aripiprazole?", session_id=session)
    events = ask(server, "And its side effects?", session_id=session)
    run_id = first(events, "run_start")["run_id"]
    difference = json.loads(stagecast("replay", run_id, "--with", "retriever=hybrid", "--json").stdout)
    assert difference["run_from"] == "retrieval"
    assert difference["now"]["answer"] == answer_of(events)


def test_a_run_that_found_nothing_is_not_run_again_behind_that(stagecast, start_server, sample_database):
    broken = start_server(database_url=sample_database, idle_timeout_s=0.001)
    run_id = first(ask(broken, QUESTION), "run_start")["run_id"]
    done = stagecast("replay", run_id, "--with", "reranker=backwards", code=1)
    assert "did not get through retrieval" in done.stderr.decode()


def test_what_others_have_asked_does_not_steer_the_terminal(stagecast, server):
    run_id = first(ask(server, "What is lithium? \x1b]52;c;ZXZpbA==\x1b\\ \x9b2J"), "run_start")["run_id"]
    printed = (
        stagecast("runs", "--limit", 1).stdout + stagecast("replay", run_id, "--with", "reranker=flashrank").stdout
    )
    assert "What is lithium?" in printed.decode()
    assert not {"\x1b", "\x9b"} & {*printed.decode()}


def test_nothing_is_stored_of_a_run_that_is_run_again(stagecast, run_id):
    before = rows(stagecast("runs", "--json", "--limit", 1000))
    stagecast("replay", run_id, "--with", "reranker=backwards")
    assert rows(stagecast("runs", "--json", "--limit", 1000)) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ffff"], "no run has the id 'ffff'"),
        ([""], "several runs' ids begin with"),
        (["{run}", "--with", "embedder=minilm"], "--with takes retriever, reranker, llm"),
        (["{run}", "--with", "reranker=nothing"], "nothing"),
    ],
)
def test_what_cannot_be_replayed_is_named(stagecast, run_id, arguments, told):
    done = stagecast("replay", *(argument.replace("{run}", run_id) for argument in arguments), code=1)
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_change_is_of_a_stage_in_force():
    assert first_stage(("condense", "retrieval", "reranking"), {"reranker": "a", "retriever": "b"}) == "retrieval"
    with pytest.raises(BadSetting, match="the stage reranking, which asks the reranker, is not in force"):
        first_stage(("retrieval", "generation"), parse_changes(["reranker=a"]))


def given(name):
    return Given(name, 0, name.title(), 0.5)


def test_ranks_tell_where_a_passage_was_and_is():
    found = ranks([given("a"), given("b")], [given("b"), given("c")])
    assert [(row.document_id, was, now) for row, was, now in found] == [("b", 2, 1), ("c", None, 2), ("a", 1, None)]


def test_answers_are_compared_sentence_by_sentence():
    assert answer_difference("One. Two.", "One. Three.") == ["  One.", "- Two.", "+ Three."]


def passage(**values):
    return Passage(chunk_id=1, document_id="d", title="D", text="Text.", score=0.5, **values)


def test_a_recording_is_read_as_it_was_written():
    run = Run(id="r", session_id="s", message_id="m", question="Why?", filters={"a": 1})
    recording = recorded(run, [Left("retrieval", "Why?", [passage(scores={"dense": 0.1}, metadata={"year": 2020})])])
    encoded = encode(recording)
    assert encoded
    assert decode(encoded) == recording
    assert recording.before("reranking", ["retrieval", "reranking"]).passages == recording.left[0].passages
    assert recording.before("retrieval", ["retrieval", "reranking"]) == Left("", "Why?", [])


def test_a_recording_keeps_the_end_of_a_long_conversation():
    turns = [Message("user", f"{n}" * 9_000) for n in range(5)]
    run = Run(id="r", session_id="s", message_id="m", question="Why?", history=turns)
    kept = recorded(run, []).history
    assert kept == turns[-2:]
    assert sum(len(turn.content) for turn in kept) <= MAX_HISTORY_CHARS


CYCLE: dict[str, object] = {}
CYCLE["a"] = CYCLE


@pytest.mark.parametrize("odd", [{"a": object()}, {"a": "\ud800"}, {"a": 2**70}, {"a": "x" * 2**21}, CYCLE])
def test_what_cannot_be_written_down_is_not_recorded(odd):
    run = Run(id="r", session_id="s", message_id="m", question="Why?")
    assert encode(recorded(run, [Left("retrieval", "Why?", [passage(metadata=odd)])])) is None
