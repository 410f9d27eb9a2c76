"""Asks a search all queries and measures the rankings: quality by ``ir-measures``, which counts as trec_eval does."""

from __future__ import annotations

import importlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import msgspec
import numpy as np

from api.evaluation.beir import Qrels
from api.system import System, warm
from pipeline.errors import ConfigurationError
from pipeline.ports import Passage, Reranker, Retriever, Scope
from pipeline.threaded import as_async

MEASURES = {"ndcg@10": "nDCG@10", "recall@10": "R@10", "recall@50": "R@50", "mrr@10": "RR@10"}
"""Ours, and the names that ir-measures has for them."""
WARM_UP = 10
"""Queries that are asked before the clock counts."""
WHOLE, FUSED = "default", "fused"
"""What is in force; the retriever's own order, which is also the ``method`` of a reranker that keeps it."""

Search = Callable[[str], Awaitable[list[Passage]]]
Scores = dict[str, dict[str, float]]
"""For each measure the score of each query."""


class Measured(msgspec.Struct, frozen=True):
    """One search: its figures by name, and each query's share in them."""

    figures: dict[str, float]
    """Means of the measures; ``ms_p50`` and ``ms_p95`` of a query by the clock; ``cpu_ms`` a query in this process."""
    scores: Scores


def library() -> Any:
    """Import ir-measures.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module("ir_measures")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "`stagecast eval` needs the package ir-measures, which is not installed; install the extra eval: "
            "`uv sync --extra eval`, or `pip install 'stagecast[eval]'`"
        ) from None


async def searches(system: System) -> dict[str, Search]:
    """Return what is to be measured, ready to be asked: what ``POST /chat`` uses, and each part of it alone.

    ``default`` is the retriever with the reranker, if a stage uses it; ``fused`` the retriever's own order, where a
    reranker changes it; the others are the retriever's parts.
    """
    host, limit = system.host, system.host.options.candidates
    await warm(host.embedder)
    await warm(host.retriever)
    found: dict[str, Search] = {WHOLE: _retrieval(host.retriever, limit)}
    ranking = await reranker(system)
    if ranking and ranking.method != FUSED:
        found = {WHOLE: _reranked(ranking, found[WHOLE]), FUSED: found[WHOLE]}
    parts: dict[str, Retriever] = getattr(host.retriever, "parts", {})
    for name, part in parts.items():
        found.setdefault(name, _retrieval(as_async(part, host.threads, ["search"], []), limit))
    return found


async def reranker(system: System) -> Reranker | None:
    """Return the reranker that a stage in force uses, once it knows whether it has a model; None if none is used."""
    made: Any = system.host.made().get("reranker")
    if settled := getattr(made, "settled", None):
        await settled()
    return cast("Reranker | None", made)


def _retrieval(retriever: Any, limit: int) -> Search:
    async def search(question: str) -> list[Passage]:
        passages: list[Passage] = await retriever.search(question, limit, Scope())
        return passages

    return search


def _reranked(ranking: Reranker, retrieval: Search) -> Search:
    async def search(question: str) -> list[Passage]:
        candidates = await retrieval(question)
        return await ranking.rerank(question, candidates, len(candidates))

    return search


async def measure(search: Search, queries: dict[str, str], qrels: Qrels, asked: Callable[[], object]) -> Measured:
    """Ask all queries, one at a time, after some to warm up; ``asked`` is called after each."""
    for question in islice(queries.values(), WARM_UP):
        await search(question)
    rankings: dict[str, list[str]] = {}
    elapsed_ms: list[float] = []
    cpu_s = time.process_time()
    for name, question in queries.items():
        begun = time.perf_counter()
        passages = await search(question)
        elapsed_ms.append(1000 * (time.perf_counter() - begun))
        rankings[name] = documents(passages)
        asked()
    cpu_ms = 1000 * (time.process_time() - cpu_s) / len(queries)
    scores = judged(rankings, qrels)
    p50, p95 = np.percentile(elapsed_ms, [50, 95])
    times = {"ms_p50": round(float(p50), 2), "ms_p95": round(float(p95), 2), "cpu_ms": round(cpu_ms, 2)}
    return Measured({**means(scores), **times}, scores)


def documents(passages: Iterable[Passage]) -> list[str]:
    """Return the passages' documents, each at the place of its best passage."""
    return list(dict.fromkeys(passage.document_id for passage in passages))


def judged(rankings: Mapping[str, Sequence[str]], qrels: Qrels) -> Scores:
    """Return each query's scores; a query without a ranking has 0.

    trec_eval orders by score and ties by name, so that each place is given a score of its own.
    """
    ir = library()
    run = {query: {name: float(-place) for place, name in enumerate(names)} for query, names in rankings.items()}
    parsed = {ir.parse_measure(theirs): ours for ours, theirs in MEASURES.items()}
    scores: Scores = {ours: {} for ours in MEASURES}
    for metric in ir.iter_calc(list(parsed), qrels, run):
        scores[parsed[metric.measure]][metric.query_id] = round(float(metric.value), 6)
    return scores


def means(scores: Scores) -> dict[str, float]:
    """Return the mean of each measure over the queries."""
    return {measure: round(float(np.mean(list(each.values()))), 4) for measure, each in scores.items()}


async def configuration(system: System) -> dict[str, str | int]:
    """Return what is in force, for whoever compares two reports."""
    host, ranking = system.host, await reranker(system)
    return {
        "retriever": system.settings.retriever,
        "reranker": ranking.method if ranking else "none",
        "embedder": host.embedder.name,
        "candidates": host.options.candidates,
    }
