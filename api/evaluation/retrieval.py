"""``stagecast eval FOLDER``: how good the retriever and the reranker in force rank a BEIR folder's documents."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from api.evaluation import beir, measuring, store
from api.evaluation.beir import BadEvaluation, Dataset
from api.evaluation.comparing import PERMUTATIONS, Comparison, compare
from api.evaluation.measuring import WHOLE, Measured, Scores
from api.settings import Settings
from api.system import System

SURE = 0.05
"""A smaller p is printed bold."""


class Report(msgspec.Struct, frozen=True):
    """All that one evaluation found out; what ``--json`` prints and ``--compare`` reads."""

    dataset: str
    queries: int
    documents: int
    systems: dict[str, dict[str, float]]
    """``default`` first, then each part alone."""
    configuration: dict[str, str | int] = {}
    comparisons: dict[str, dict[str, Comparison]] = {}
    """``default`` against each part, by measure."""
    per_query: dict[str, Scores] = {}
    """The scores behind the means: by system, measure and query."""


async def evaluate(settings: Settings, folder: Path, split: str | None, *, as_json: bool, fresh: bool) -> int:
    """Measure every system on the folder and print the report; return the exit code.

    Raises:
        BadEvaluation: The folder cannot be used.
        ConfigurationError: A store of its own cannot be made or filled, or a package is missing.
    """
    measuring.library()
    dataset = beir.load(folder, split)
    console = Console(stderr=True, highlight=False)
    if dataset.missing:
        console.print(
            f"{len(dataset.missing)} relevant documents are not in {dataset.corpus.name} and cannot be found: "
            f"{', '.join(dataset.missing[: beir.SHOWN])}, ...",
            style="yellow",
        )
    async with store.filled(settings, [dataset.corpus], console, fresh=fresh) as system:
        report = await _measured(system, dataset, console)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(report)
    return 0


def compare_files(first: Path, second: Path) -> int:
    """Print how the systems in force compare, of two reports that ``--json`` has written; return the exit code.

    Raises:
        BadEvaluation: One is no such report, or they are of different queries.
    """
    one, other = _scores_of(first), _scores_of(second)
    queries = [set(next(iter(scores.values()), {})) for scores in (one, other)]
    if queries[0] != queries[1]:
        raise BadEvaluation(f"{first} and {second} are of different queries; evaluate the same folder and split")
    table = _comparison_table(f"{first.stem} against {second.stem}")
    _add_comparison(table, second.stem, compare(one, other))
    Console(highlight=False).print(table)
    return 0


async def _measured(system: System, dataset: Dataset, console: Console) -> Report:
    searches = await measuring.searches(system)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found: dict[str, Measured] = {}
    with Progress(*columns, console=console) as bar:
        for name, search in searches.items():
            task = bar.add_task(name, total=len(dataset.queries))
            found[name] = await measuring.measure(search, dataset.queries, dataset.qrels, partial(bar.advance, task))
    scores = {name: measured.scores for name, measured in found.items()}
    return Report(
        dataset.name,
        len(dataset.queries),
        dataset.documents,
        {name: measured.figures for name, measured in found.items()},
        await measuring.configuration(system),
        {name: compare(scores[WHOLE], part) for name, part in scores.items() if name != WHOLE},
        scores,
    )


def _scores_of(path: Path) -> Scores:
    try:
        scores = msgspec.json.decode(path.read_bytes(), type=Report).per_query.get(WHOLE)
    except msgspec.DecodeError as problem:
        raise BadEvaluation(f"{path} is no report of `stagecast eval FOLDER --json`: {problem}") from None
    if not scores or not all(scores.values()):
        raise BadEvaluation(
            f"{path} has no scores of {WHOLE!r} by query; write it anew: `stagecast eval FOLDER --json`"
        )
    return scores


def _print(report: Report) -> None:
    console = Console(highlight=False)
    shown = ", ".join(f"{name} {value}" for name, value in report.configuration.items())
    console.print(f"{report.dataset}: {report.queries:,} queries, {report.documents:,} documents; {shown}\n")
    console.print(_figures_table(report.systems))
    if report.comparisons:
        table = _comparison_table(f"{WHOLE} against each part")
        for name, compared in report.comparisons.items():
            _add_comparison(table, name, compared)
        console.print(table)


def _figures_table(systems: Mapping[str, Mapping[str, float]]) -> Table:
    names = [*measuring.MEASURES, "ms_p50", "ms_p95", "cpu_ms"]
    table = Table("", box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for name, figures in systems.items():
        cells = [f"{figures[key]:.4f}" if key in measuring.MEASURES else f"{figures[key]:.1f}" for key in names]
        table.add_row(name, *cells)
    return table


def _comparison_table(title: str) -> Table:
    table = Table("", "measure", title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for name in ("difference", "p", "better", "same", "worse"):
        table.add_column(name, justify="right")
    table.caption = f"Per query; p by a paired randomisation test, {PERMUTATIONS:,} permutations."
    table.caption_justify = "left"
    return table


def _add_comparison(table: Table, name: str, compared: Mapping[str, Comparison]) -> None:
    for measure, found in compared.items():
        style = "bold" if found.p < SURE else ""
        counts = (str(found.wins), str(found.ties), str(found.losses))
        table.add_row(name, measure, f"{found.difference:+.4f}", f"{found.p:.4f}", *counts, style=style)
        name = ""
