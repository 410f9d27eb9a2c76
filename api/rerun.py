"""``stagecast replay --with``: a stored run's later stages run again with another part, and what that changes."""

from __future__ import annotations

import difflib
import re
import sys
import uuid
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.settings import Settings
from api.storage.patience import LimitedEngine
from api.storage.recorded import RecordedRuns
from api.storage.runs import StoredRun
from api.system import System, running, warm_all
from api.terminal import shown
from pipeline.ending import Outcome
from pipeline.errors import BadSetting, StagecastError
from pipeline.ports import Passage, Run
from pipeline.recording import Left, Recording
from pipeline.runner import Runner

STAGE_OF = {"retriever": "retrieval", "reranker": "reranking", "llm": "generation"}
"""Where each kind of part is at work first; the stage ``condense``, whose question was recorded, is not run again."""
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")


FINDING = {"retrieval", "reranking"}
"""Stages without whose end those behind them have no passages."""


class NothingLeft(StagecastError):
    """A run ended before the stage from which it is to be run again."""

    def __init__(self, run_id: str, ended_in: str, start: str) -> None:
        super().__init__(f"run {run_id} did not get through {ended_in}, so {start} has nothing to be run again on")


class Given(msgspec.Struct, frozen=True):
    """A passage that was given to the LLM."""

    document_id: str
    position: int
    title: str
    score: float


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A run, as it was or as it is now; ``passages`` best first, times in ms."""

    status: str
    passages: list[Given]
    answer: str
    stages: dict[str, float]
    error: str | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it was beside what it is with other parts; ``now`` has no times of stages that were not run again."""

    run_id: str
    question: str
    changed: dict[str, str]
    run_from: str
    """The first stage that was run again."""
    was: Side
    now: Side


class NothingStored:
    """A store that keeps nothing, for a run that is only looked at."""

    async def begin(self, run: Run) -> None:
        """Let it begin."""

    async def finish(self, run: Run, outcome: Outcome, frames: list[bytes]) -> None:
        """Let it end."""


async def rerun(settings: Settings, run_id: str, changes: Sequence[str], *, as_json: bool = False) -> int:
    """Run a stored run again with other parts, print what changes, and return the exit code: 1 when it fails now.

    Raises:
        BadSetting: A change is none, or its stage is not in force.
        ConfigurationError: There is no such plugin.
        UnknownRunId, NotKept: The run cannot be had.
    """
    chosen = parse_changes(changes)
    start = first_stage(settings.stages, chosen)
    async with running(settings.model_copy(update=chosen), share=True) as system:
        stored_runs = RecordedRuns(LimitedEngine(system.engine))
        stored = await stored_runs.find(run_id)
        recording = await stored_runs.recording(stored.run_id)
        before = left_before(start, settings.stages, stored, recording)
        await warm_all(system)
        now = await run_again(system, stored, recording, before, start)
    most = settings.sources
    difference = Difference(
        run_id=stored.run_id,
        question=recording.question,
        changed=chosen,
        run_from=start,
        was=_side(stored.outcome, recording.left, most),
        now=_side(now, now.left or [before], most),
    )
    if as_json:
        sys.stdout.write(msgspec.json.encode(difference).decode() + "\n")
    else:
        show(difference, Console(highlight=False))
    return int(now.status != "completed")


def parse_changes(changes: Sequence[str]) -> dict[str, str]:
    """Return the plugin chosen for each kind in ``KIND=NAME``.

    Raises:
        BadSetting: One is not of that form, or of a kind that cannot be changed.
    """
    pairs = [change.partition("=") for change in changes]
    for kind, _, name in pairs:
        if kind not in STAGE_OF or not name:
            raise BadSetting(f"--with takes {', '.join(STAGE_OF)}, as in reranker=NAME, not {kind!r}")
    return {kind: name for kind, _, name in pairs}


def first_stage(stages: Sequence[str], chosen: Mapping[str, str]) -> str:
    """Return the first of the stages in force that a change has to do with.

    Raises:
        BadSetting: A change has to do with none.
    """
    affected = {STAGE_OF[kind]: kind for kind in chosen}
    for stage, kind in affected.items():
        if stage not in stages:
            raise BadSetting(f"the stage {stage}, which asks the {kind}, is not in force (STAGECAST_STAGES)")
    return next(stage for stage in stages if stage in affected)


def left_before(start: str, stages: Sequence[str], stored: StoredRun, recording: Recording) -> Left:
    """Return what a stage that is to be run again began with.

    Raises:
        NothingLeft: The run had ended before it.
    """
    missing = [name for name in stages[: stages.index(start)] if name in FINDING and name not in stored.outcome.stages]
    if missing:
        raise NothingLeft(stored.run_id, missing[0], start)
    return recording.before(start, stages)


async def run_again(system: System, stored: StoredRun, recording: Recording, before: Left, start: str) -> Outcome:
    """Run the stages from ``start`` on, on what those before it had left; return how that ends."""
    names = [name for name, _ in system.stages]
    run = Run(
        id=uuid.uuid4().hex,
        session_id=stored.session_id,
        message_id=stored.message_id,
        owner=stored.owner,
        question=recording.question,
        query=before.query,
        history=recording.history,
        filters=recording.filters,
        passages=before.passages,
    )
    runner = Runner(system.stages[names.index(start) :], system.bus, NothingStored(), system.settings.limits)
    await runner.start(run)
    ended = runner.ended(run.id)
    assert ended is not None  # it was begun this instant
    return await ended


def _side(outcome: Outcome, left: Sequence[Left], most: int) -> Side:
    passages = left[-1].passages[:most] if left else []
    order = [one.stage for one in left]
    return Side(
        status=outcome.status,
        passages=[_given(passage) for passage in passages],
        answer=outcome.answer,
        stages={name: outcome.stages[name].elapsed_ms for name in order if name in outcome.stages},
        error=outcome.error.message if outcome.error else None,
    )


def _given(passage: Passage) -> Given:
    return Given(passage.document_id, passage.position, passage.title, round(passage.score, 4))


def show(difference: Difference, console: Console) -> None:
    """Print what is different: passages with their ranks, times, and the sentences of the answer."""
    changed = ", ".join(f"{kind}={name}" for kind, name in difference.changed.items())
    console.print(Text(shown(f"{difference.run_id}  {difference.question}")))
    console.print(Text(f"run again from {difference.run_from} with {changed}: {difference.now.status}\n"))
    console.print(_passages(difference.was.passages, difference.now.passages), "")
    console.print(_times(difference.was.stages, difference.now.stages), "")
    for line in answer_difference(difference.was.answer, difference.now.answer):
        console.print(Text(shown(line), style={"-": "red", "+": "green"}.get(line[0], "")))
    if difference.now.error:
        console.print(Text(difference.now.error, style="red"))


def ranks(was: Sequence[Given], now: Sequence[Given]) -> list[tuple[Given, int | None, int | None]]:
    """Return each passage with its rank then and now, from 1, in the order of now; those that are gone come last."""
    then = {(given.document_id, given.position): n for n, given in enumerate(was, 1)}
    rows = [(given, then.pop((given.document_id, given.position), None), n) for n, given in enumerate(now, 1)]
    return rows + [(was[n - 1], n, None) for n in then.values()]


def _passages(was: Sequence[Given], now: Sequence[Given]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for rank in ("was", "now", "score"):
        table.add_column(rank, justify="right")
    table.add_column("passage for the LLM")
    for given, before, after in ranks(was, now):
        style = "red" if after is None else "green" if before is None else ""
        place = Text(shown(f"{given.title} ({given.document_id}, {given.position})"))
        table.add_row(str(before or "-"), str(after or "-"), f"{given.score:.3f}", place, style=style)
    return table


def _times(was: Mapping[str, float], now: Mapping[str, float]) -> Table:
    table = Table("stage", box=None, header_style="bold", pad_edge=False)
    for side in ("was, ms", "now, ms"):
        table.add_column(side, justify="right")
    for stage in {**was, **now}:
        table.add_row(stage, *(f"{times[stage]:.1f}" if stage in times else "-" for times in (was, now)))
    return table


def answer_difference(was: str, now: str) -> list[str]:
    """Return the answer's sentences, those that are gone behind "- ", those that are new behind "+ "."""
    if was == now:
        return ["The answer is the same."]
    compared = difflib.ndiff(SENTENCE_END.split(was), SENTENCE_END.split(now))
    return [line for line in compared if not line.startswith("?")]
