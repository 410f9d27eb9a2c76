"""The measures, the comparison and the reading of folders, each against figures worked out by hand."""

import math
from itertools import product

import numpy as np
import pytest

from api.evaluation import beir, measuring
from api.evaluation.beir import BadEvaluation
from api.evaluation.comparing import compare, randomised
from pipeline.fakes import passage

CORPUS = '{"_id": "a", "title": "A", "text": "One."}\n{"_id": "b", "title": "B", "text": "Two."}\n'
QUERIES = '{"_id": "q1", "text": "What is one?"}\n{"_id": "q2", "text": "What is two?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tb\t1\n"


@pytest.fixture
def folder(put, tmp_path):
    put("corpus.jsonl", CORPUS)
    put("queries.jsonl", QUERIES)
    put("qrels/test.tsv", QRELS)
    return tmp_path


def test_each_place_of_a_ranking_counts_as_the_definitions_say():
    ranking = [f"x{n}" for n in range(60)]
    ranking[1], ranking[3], ranking[11] = "good", "fair", "late"  # places 2, 4 and 12
    qrels = {"q": {"good": 2, "fair": 1, "late": 1, "never": 1, "x0": 0}}
    scores = measuring.judged({"q": ranking}, qrels)
    gained = 2 / math.log2(3) + 1 / math.log2(5)
    best = 2 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)
    assert scores["ndcg@10"]["q"] == pytest.approx(gained / best, abs=1e-6)
    assert scores["recall@10"]["q"] == pytest.approx(2 / 4)
    assert scores["recall@50"]["q"] == pytest.approx(3 / 4)
    assert scores["mrr@10"]["q"] == pytest.approx(1 / 2)


def test_what_stands_behind_the_tenth_place_is_nothing_to_ndcg_and_mrr():
    ranking = [f"x{n}" for n in range(10)] + ["good"]
    scores = measuring.judged({"q": ranking}, {"q": {"good": 1}})
    assert [scores[name]["q"] for name in ("ndcg@10", "recall@10", "recall@50", "mrr@10")] == [0, 0, 1, 0]


def test_the_order_counts_and_not_the_names():
    for names in (["a", "z"], ["z", "a"]):
        scores = measuring.judged({"q": names}, {"q": {names[0]: 1}})
        assert scores["ndcg@10"]["q"] == 1


def test_a_query_that_found_nothing_counts_as_nought():
    scores = measuring.judged({"q1": ["a"], "q2": []}, {"q1": {"a": 1}, "q2": {"b": 1}})
    assert scores["mrr@10"] == {"q1": 1, "q2": 0}
    assert measuring.means(scores) == {"ndcg@10": 0.5, "recall@10": 0.5, "recall@50": 0.5, "mrr@10": 0.5}


def test_a_document_stands_where_its_best_chunk_stands():
    chunks = [passage(n) for n in (3, 1, 3, 2, 1)]
    assert measuring.documents(chunks) == ["doc-3", "doc-1", "doc-2"]


def scored(values):
    return {"ndcg@10": {f"q{n}": value for n, value in enumerate(values)}}


def test_a_ranking_compared_with_itself_differs_in_nothing():
    scores = scored([0.1, 0.5, 1.0, 0.0])
    found = compare(scores, scores)["ndcg@10"]
    assert (found.difference, found.p) == (0, 1)
    assert (found.wins, found.ties, found.losses) == (0, 4, 0)


def test_the_sign_says_which_ranking_is_better():
    better, worse = scored([1.0, 0.5, 0.3, 0.2]), scored([0.5, 0.5, 0.1, 0.4])
    found = compare(better, worse)["ndcg@10"]
    assert found.difference == 0.125
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert compare(worse, better)["ndcg@10"].difference == -0.125


def test_p_is_the_share_of_signs_that_give_as_much():
    differences = np.array([0.4, 0.3, 0.2, -0.1, 0.25, 0.05, 0.35, -0.2])
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    exact = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9)
    [p, halved] = randomised(np.stack([differences, differences / 2], axis=1))
    assert p == pytest.approx(exact, abs=0.01)
    assert halved == p == randomised(differences[:, None])[0]


def test_many_small_gains_are_no_chance_and_a_few_may_be():
    assert randomised(np.full((50, 1), 0.02))[0] < 0.001
    assert randomised(np.full((3, 1), 0.02))[0] == pytest.approx(0.25, abs=0.02)


def test_a_folder_is_read_with_the_queries_that_have_relevant_documents(folder, put):
    put("queries.jsonl", QUERIES + '{"_id": "q3", "text": "What is three?"}\n')
    put("qrels/test.tsv", QRELS + "q3\ta\t0\nq1\tgone\t2\n")
    found = beir.load(folder)
    assert found.queries == {"q1": "What is one?", "q2": "What is two?"}
    assert found.documents == 2
    assert found.qrels["q1"] == {"a": 1, "gone": 2}
    assert found.missing == ["gone"]


def test_several_judgements_are_told_apart_by_name(folder, put):
    put("qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq1\ta\t1\n")
    with pytest.raises(BadEvaluation, match=r"--split: dev, test"):
        beir.load(folder)
    assert list(beir.load(folder, "dev").queries) == ["q1"]
    with pytest.raises(BadEvaluation, match=r"train\.tsv.*--split: dev, test"):
        beir.load(folder, "train")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("corpus.jsonl", CORPUS + "not json\n", r"corpus\.jsonl:3 is not JSON"),
        ("corpus.jsonl", CORPUS + '{"_id": "c", "text": ""}\n', r"corpus\.jsonl:3 has no text"),
        ("corpus.jsonl", CORPUS + CORPUS, r"corpus\.jsonl:3 has the id 'a'.*corpus\.jsonl:4"),
        ("queries.jsonl", QUERIES + '{"text": "no id"}\n', r"queries\.jsonl:3.*_id"),
        ("queries.jsonl", QUERIES + "[]\n", r"queries\.jsonl:3"),
        ("queries.jsonl", QUERIES + '{"_id": "q3", "text": " "}\n', r"queries\.jsonl:3.*no text"),
        ("queries.jsonl", QUERIES + QUERIES, r"queries\.jsonl:3.*'q1'"),
        ("queries.jsonl", b"\xff\xfe", r"queries\.jsonl is not UTF-8"),
        ("qrels/test.tsv", QRELS + "q1 b 1\n", r"test\.tsv:4.*tabs"),
        ("qrels/test.tsv", QRELS + "q1\tb\tyes\n", r"test\.tsv:4.*whole number"),
        ("qrels/test.tsv", QRELS + "q9\tb\t1\n", r"test\.tsv:4.*'q9'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\ta\t0\n", r"test\.tsv calls no document relevant"),
        ("corpus.jsonl.gz", b"", r"has both corpus\.jsonl and corpus\.jsonl\.gz"),
    ],
)
def test_a_fault_is_told_by_file_and_line(folder, put, name, content, named):
    put(name, content)
    with pytest.raises(BadEvaluation, match=named):
        beir.load(folder)


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_told_by_name(folder, name):
    (folder / name).unlink()
    with pytest.raises(BadEvaluation, match=name.split("/", maxsplit=1)[0]):
        beir.load(folder)
