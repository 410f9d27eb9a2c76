"""What counts as a right answer, and questions asked of a collection."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from api.evaluation.answers import Answer, Question, judge, read_questions
from api.evaluation.beir import BadEvaluation
from pipeline import prompts
from pipeline.events import Source
from tests.conftest import clean_environment

SOURCES = [Source(1, "zebra", "Zebras", None, "", 0.9), Source(2, "lion", "Lions", None, "", 0.8)]
WANTED = Question("Why do zebras have stripes?", ["zebra", "horse"], [["flies", "insects"], ["stripes"]])
OFF_TOPIC = Question("What is a boat?", answerable=False)


def verdict(answer, wanted=WANTED, finish="stop"):
    return judge(wanted, Answer(answer, SOURCES, finish))


def test_an_answer_with_its_facts_and_a_right_source_passes():
    found = verdict("The stripes confuse flies [1].")
    assert found.failed == []
    assert found.cited == ["zebra"]


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("The stripes confuse flies [2].", ["source"]),
        ("The stripes confuse flies.", ["source"]),
        ("The stripes confuse lions [1].", ["facts"]),
        ("The stripes confuse flies [1] [3].", ["citations"]),
        ("The stripes confuse flies [2, 1].", []),
        ("The stripes confuse flies [1], see `a[9]`.", []),
        (prompts.REFUSAL, ["source", "facts", "refusal"]),
    ],
)
def test_each_fault_is_told_by_its_check(answer, failed):
    assert verdict(answer).failed == failed


def test_only_a_refusal_is_right_where_there_is_no_answer():
    assert judge(OFF_TOPIC, Answer(prompts.REFUSAL, (), "no_sources")).failed == []
    assert verdict(prompts.REFUSAL, OFF_TOPIC).failed == []  # a model that refuses in words
    found = verdict("A boat floats [1].", OFF_TOPIC)
    assert found.failed == ["refusal"]
    assert (found.source, found.facts) == (None, None)


def test_an_answer_that_broke_off_is_no_refusal():
    assert judge(OFF_TOPIC, Answer(error="gone")).failed == ["refusal"]
    assert judge(WANTED, Answer(error="gone")).failed == ["source", "facts", "refusal"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", ":2"),
        ('{"relevant": []}', ":2.*question"),
        ('{"question": "a", "facts_any": ["b"]}', r":2.*facts_any"),
    ],
)
def test_a_line_that_is_no_question_is_told_by_number(put, line, named):
    path = put("questions.jsonl", f'{{"question": "a"}}\n{line}\n')
    with pytest.raises(BadEvaluation, match=named):
        read_questions(path)


def test_a_file_without_questions_is_told(put):
    with pytest.raises(BadEvaluation, match="has no question"):
        read_questions(put("questions.jsonl", "\n"))


LINES = [
    {"question": "What do the stripes of zebras confuse?", "relevant": ["zebra"], "facts_any": [["flies"]]},
    {"question": "What do lions live in?", "relevant": ["zebra"], "facts_any": [["castles"]]},
    {"question": "How is bread baked in Iceland?", "answerable": False},
]


@pytest.fixture
def questions(put):
    put("docs/zebra.md", "---\nid: zebra\ntitle: Zebras\n---\n\nZebras have stripes that confuse flies.\n")
    put("docs/lion.md", "---\nid: lion\ntitle: Lions\n---\n\nLions have manes and live in prides.\n")
    return put("questions.jsonl", "".join(json.dumps(line) + "\n" for line in LINES))


def run(*arguments, folder, **settings):
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *map(str, arguments)],
        env=clean_environment(data_dir=folder / "data", sample="false", **settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


CHECKED = {
    "source": {"right": 1, "of": 2},
    "facts": {"right": 1, "of": 2},
    "refusal": {"right": 3, "of": 3},
    "citations": {"right": 3, "of": 3},
}


def test_questions_to_a_folder_are_answered_from_that_folder_alone(questions, tmp_path, new_database):
    url = new_database()
    done = run("eval", tmp_path / "docs", "--questions", questions, "--json", folder=tmp_path, database_url=url)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["checks"] == CHECKED
    assert [answer["cited"] for answer in report["answers"]] == [["zebra"], ["lion"], []]
    shown = run("eval", tmp_path / "docs", "--questions", questions, folder=tmp_path, database_url=url)
    assert "2 unchanged" in shown.stderr
    assert "source, facts: What do lions live in?" in shown.stdout
    assert "a right source cited: 1 of 2" in shown.stdout


def test_questions_to_the_collection_leave_no_conversation(questions, tmp_path, start_server, new_database):
    url = new_database()
    run("ingest", tmp_path / "docs", folder=tmp_path, database_url=url)
    done = run("eval", questions, "--json", folder=tmp_path, database_url=url)
    assert json.loads(done.stdout)["checks"] == CHECKED
    server = start_server(database_url=url, sample="false")
    served = run("eval", questions, "--url", server.url, "--json", folder=tmp_path)
    assert served.returncode == 0, served.stderr
    assert json.loads(served.stdout)["checks"] == CHECKED
    assert httpx.get(f"{server.url}/sessions").json()["sessions"] == []


def test_the_sample_collection_answers_its_questions(sample_database, server, tmp_path):
    path = Path(__file__).parents[1] / "bench" / "sample_questions.jsonl"
    done = run("eval", path, "--json", folder=tmp_path, database_url=sample_database)
    checks = json.loads(done.stdout)["checks"]
    assert checks["refusal"] == checks["citations"] == {"right": 24, "of": 24}
    assert checks["source"]["right"] >= 19
    assert checks["facts"]["right"] >= 18


def test_a_server_that_is_not_there_is_told_by_its_address(questions, tmp_path):
    done = run("eval", questions, "--url", "http://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert "no server answers at http://127.0.0.1:1" in done.stderr


def test_an_answer_that_fails_is_counted_and_told(questions, tmp_path, new_database):
    settings = {"database_url": new_database(), "llm_model": "openai/none", "llm_api_base": "http://127.0.0.1:1/v1"}
    done = run("eval", tmp_path / "docs", "--questions", questions, folder=tmp_path, **settings)
    assert done.returncode == 1, done.stderr
    assert "not answered to the end: 3" in done.stdout
    assert "Traceback" not in done.stderr
