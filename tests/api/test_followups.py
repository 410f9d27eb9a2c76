"""Conversations: a follow-up finds what it is about, by rules alone and with an LLM."""

import uuid

import pytest

from tests.conftest import answer_of, ask, first
from tests.faulty_llm import STANDALONE

SIDE_EFFECTS = "What are the side effects of aripiprazole?"

CONVERSATIONS = [
    ([SIDE_EFFECTS, "And in children?"], "aripiprazole", "teenagers, sleepiness"),
    ([SIDE_EFFECTS, "And metformin?"], "metformin", "diarrhea"),
    ([SIDE_EFFECTS, "And metformin?", "Is it approved for children?"], "metformin", "ten years"),
    (["What is lithium used for?", "Is it safe in pregnancy?"], "lithium", "Ebstein"),
    (["What are the side effects of lithium?", "Can I take ibuprofen with it?"], "lithium", "ibuprofen"),
    (["How does metformin work?", "What are the serious side effects?"], "metformin", "actic acidosis"),
    (["Tell me about warfarin", "Which blood test guides it?"], "warfarin", "INR"),
    (["What are the symptoms of insomnia?", "How is it treated?"], "insomnia", "CBT-I"),
    (["What are the side effects of valproate?", "During pregnancy?", "And lamotrigine?"], "lamotrigine", "rash"),
    (["How does warfarin work?", "And apixaban?"], "apixaban", "factor Xa"),
    (["What is naltrexone?", "Who should not take it?"], "naltrexone", "opioid"),
    (["What triggers migraine?", "And how is it treated?"], "migraine", "triptan"),
    (["What are the uses of gabapentin?", "Any serious side effects?"], "gabapentin", "reathing"),
    (["Does lithium cause tremor?", "Are there interactions with ibuprofen?"], "lithium", "ibuprofen"),
    (["What are the symptoms of hypothyroidism?", "How do you test for it?"], "hypothyroidism", "TSH"),
    (
        ["What are the side effects of mirtazapine?", "What about bupropion?", "Does it affect sleep?"],
        "bupropion",
        "insomnia",
    ),
]


def talked(server, questions):
    """Ask the questions in one session; return the events of the last run."""
    session = f"talk-{uuid.uuid4()}"
    return [ask(server, question, session_id=session) for question in questions][-1]


@pytest.mark.parametrize(
    ("questions", "document", "fact"), CONVERSATIONS, ids=[" - ".join(c[0][1:]) for c in CONVERSATIONS]
)
def test_a_follow_up_is_answered_from_the_document_that_it_is_about(server, questions, document, fact):
    events = talked(server, questions)
    assert first(events, "condense_complete")["method"] == "carried"
    assert first(events, "sources")["sources"][0]["document_id"] == document
    assert fact in answer_of(events)


def test_a_follow_up_has_the_stages_events_first_and_its_time_at_the_end(server):
    events = talked(server, [SIDE_EFFECTS, "And in children?"])
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["run_start", "condense_start", "condense_complete", "retrieval_start"]
    done, complete = first(events, "done"), first(events, "condense_complete")
    assert list(complete) == ["stage", "status", "query", "method", "elapsed_ms", "queued_ms"]
    assert list(done["stages"]) == ["condense", "retrieval", "reranking", "generation"]
    assert done["stages"]["condense"]["elapsed_ms"] == complete["elapsed_ms"]
    lines = [line for line in server.log_lines() if line.get("run_id") == done["run_id"]]
    stages = {line["stage"]: line["elapsed_ms"] for line in lines if line["event"] == "stage.complete"}
    assert stages["condense"] == complete["elapsed_ms"]


def test_a_second_question_that_stands_by_itself_is_answered_like_a_first(server):
    events = talked(server, [SIDE_EFFECTS, "What is metformin?"])
    assert not [event for event in events if event["type"].startswith("condense")]
    assert list(first(events, "done")["stages"]) == ["retrieval", "reranking", "generation"]
    assert first(events, "sources")["sources"][0]["document_id"] == "metformin"


def test_a_question_that_was_refused_can_be_followed_up(server):
    events = talked(server, ["What is the capital of Australia?", "And of Austria?"])
    assert "Australia" in first(events, "condense_complete")["query"]
    assert first(events, "generation_complete")["finish_reason"] == "no_sources"


def test_what_the_model_rewrites_is_searched_for_and_it_still_reads_the_users_own_words(llm_server, llm):
    marker = uuid.uuid4().hex
    events = talked(llm_server, [SIDE_EFFECTS, f"And then? llm:standalone {marker}"])
    complete = first(events, "condense_complete")
    assert (complete["query"], complete["method"]) == (STANDALONE, "llm")
    assert first(events, "sources")["sources"][0]["document_id"] == "aripiprazole"
    rewriting, answering = [r["messages"] for r in llm.requests if marker in r["messages"][-1]["content"]]
    assert SIDE_EFFECTS in rewriting[0]["content"]
    assert answering[-1]["content"] == f"And then? llm:standalone {marker}"
    assert "In children and teenagers" in answering[0]["content"]


def test_a_model_that_talks_of_something_else_is_not_believed(llm_server):
    events = talked(llm_server, [SIDE_EFFECTS, "And in children?"])
    complete = first(events, "condense_complete")
    assert (complete["query"], complete["method"]) == (STANDALONE, "carried")
    assert first(events, "sources")["sources"][0]["document_id"] == "aripiprazole"


def test_a_model_that_fails_does_not_keep_a_follow_up_from_being_searched_for(llm_server):
    events = talked(llm_server, [SIDE_EFFECTS, "And in children? llm:status400"])
    assert first(events, "condense_complete")["method"] == "carried"
    assert first(events, "sources")["sources"][0]["document_id"] == "aripiprazole"
    assert events[-1]["content"]["stage"] == "generation"
