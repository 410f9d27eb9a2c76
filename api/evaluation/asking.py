"""``stagecast eval QUESTIONS``: asks the pipeline, or a running server, and counts what is right about the answers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from api.evaluation import store
from api.evaluation.answers import CHECKS, Answer, Question, Verdict, judge, read_questions
from api.evaluation.beir import CORPUS, BadEvaluation, corpus_of
from api.evaluation.measuring import reranker
from api.ingest.sample import load_sample
from api.runs import new_run
from api.settings import Settings
from api.system import System, running, warm_all
from pipeline.errors import RunError
from pipeline.events import Event, GenerationComplete, tokens_of
from pipeline.ports import Run
from pipeline.text import clean

TIMEOUT_S = 120.0
"""Of one answer of a server."""
TITLES = {
    "source": "a right source cited",
    "facts": "the facts in the answer",
    "refusal": "refused if and only if there is no answer",
    "citations": "all citations lead to a source",
}

Ask = Callable[[str], Awaitable[Answer]]


class Report(msgspec.Struct, frozen=True):
    """All that was found out about the answers; what ``--json`` prints."""

    questions: int
    checks: dict[str, dict[str, int]]
    """For each check the answers that are ``right``, ``of`` those that have something to check."""
    errors: int
    """Questions that were not answered to the end."""
    ms_p50: float
    ms_p95: float
    answers: list[Verdict]


async def ask_pipeline(settings: Settings, path: Path, folder: Path | None, *, as_json: bool, fresh: bool) -> int:
    """Ask in this process, storing no conversation, and print the report; return 0, or 1 if a question failed.

    The collection is the configured one, or, in a store of its own, what is in ``folder``: documents that ``stagecast
    ingest`` reads, or a BEIR folder.

    Raises:
        BadEvaluation: The questions cannot be read.
        ConfigurationError: Something cannot be started, or the folder's documents cannot be stored.
    """
    questions = read_questions(path)
    console = Console(stderr=True, highlight=False)
    async with _collection(settings, folder, console, fresh=fresh) as system:
        await warm_all(system)
        await reranker(system)

        async def ask(question: str) -> Answer:
            return await _answered(system, question)

        return await _judged(questions, ask, console, as_json=as_json)


async def ask_server(url: str, path: Path, *, as_json: bool) -> int:
    """Ask a running server and print the report, as :func:`ask_pipeline`; its conversations are deleted afterwards."""
    questions = read_questions(path)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:

        async def ask(question: str) -> Answer:
            return await _served(client, question)

        return await _judged(questions, ask, Console(stderr=True, highlight=False), as_json=as_json)


@asynccontextmanager
async def _collection(
    settings: Settings, folder: Path | None, console: Console, *, fresh: bool
) -> AsyncGenerator[System]:
    if folder is None:
        async with running(settings, share=True) as system:
            with console.status("Starting ..."):
                await load_sample(system)
            yield system
    else:
        is_beir = any((folder / name).is_file() for name in CORPUS)
        async with store.filled(settings, [corpus_of(folder) if is_beir else folder], console, fresh=fresh) as system:
            yield system


async def _answered(system: System, question: str) -> Answer:
    """Run the stages on a question; nothing is stored or published."""
    run = new_run("", clean(question), None, {})
    tokens: list[str] = []
    finish, error, begun = None, "", time.perf_counter()
    limit_s = system.settings.total_timeout_s
    try:
        async with asyncio.timeout(limit_s), aclosing(_events(system, run)) as events:
            async for event in events:
                tokens += tokens_of(event) or []
                if isinstance(event, GenerationComplete):
                    finish = event.content.finish_reason
    except RunError as problem:
        error = str(problem)
    except TimeoutError:
        error = f"not answered within {limit_s:g} s (STAGECAST_TOTAL_TIMEOUT_S)"
    return Answer("".join(tokens), run.sources, finish, 1000 * (time.perf_counter() - begun), error)


async def _events(system: System, run: Run) -> AsyncGenerator[Event]:
    for _, stage in system.stages:
        async with aclosing(stage.run(run)) as events:
            async for event in events:
                yield event


async def _served(client: httpx.AsyncClient, question: str) -> Answer:
    try:
        response = await client.post("/chat", json={"message": question, "stream": False})
    except httpx.ReadTimeout:
        return Answer(error=f"not answered within {TIMEOUT_S:g} s")
    except httpx.TransportError as problem:
        raise BadEvaluation(f"no server answers at {client.base_url}: {problem or type(problem).__name__}") from None
    if response.status_code in {401, 403, 404}:
        raise BadEvaluation(f"{client.base_url} refuses questions: {response.status_code} {response.reason_phrase}")
    if response.is_error:
        return Answer(error=f"{response.status_code} {response.text[:200]}")
    await client.delete(f"/sessions/{response.json()['session_id']}")
    return msgspec.json.decode(response.content, type=Answer)


async def _judged(questions: Sequence[Question], ask: Ask, console: Console, *, as_json: bool) -> int:
    verdicts = [judge(wanted, await ask(wanted.question)) for wanted in track(questions, "questions", console=console)]
    report = _report(verdicts)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        _print(report)
    return 1 if report.errors else 0


def _report(verdicts: list[Verdict]) -> Report:
    right = Counter(name for verdict in verdicts for name in CHECKS if getattr(verdict, name))
    of = Counter(name for verdict in verdicts for name in CHECKS if getattr(verdict, name) is not None)
    p50, p95 = np.percentile([verdict.elapsed_ms for verdict in verdicts], [50, 95])
    return Report(
        questions=len(verdicts),
        checks={name: {"right": right[name], "of": of[name]} for name in CHECKS},
        errors=sum(bool(verdict.error) for verdict in verdicts),
        ms_p50=round(float(p50), 2),
        ms_p95=round(float(p95), 2),
        answers=verdicts,
    )


def _print(report: Report) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for verdict in report.answers:
        if verdict.failed or verdict.error:
            console.print(f"{', '.join(verdict.failed)}: {verdict.question}", style="red")
            cited = f"cited: {', '.join(verdict.cited) or 'nothing'}"
            console.print(f"    {verdict.error or verdict.answer}\n    {cited}\n")
    for name, counts in report.checks.items():
        console.print(f"{TITLES[name]}: {counts['right']} of {counts['of']}")
    console.print(f"not answered to the end: {report.errors}")
    console.print(f"ms an answer: p50 {report.ms_p50:.0f}, p95 {report.ms_p95:.0f}")
