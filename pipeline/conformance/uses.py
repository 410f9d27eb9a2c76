"""One use of a plugin of each kind, the way the pipeline uses it: what the checks do again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from pipeline import prompts
from pipeline.errors import RunError, StagecastError
from pipeline.ports import Passage, Prompt, Run, Scope

QUESTION = "What is aripiprazole, and what are its side effects?"
LIMIT = 5
PASSAGES = tuple(
    Passage(
        chunk_id=n,
        document_id=f"document-{n}",
        title=title,
        text=text,
        score=1 / (n + 1),
        scores={"dense": 0.9 - n / 10, "lexical": 9.0 - n, "fused": 1 / (n + 1)},
    )
    for n, (title, text) in enumerate(
        {
            "Aripiprazole": "Aripiprazole is a medicine for schizophrenia. Side effects are nausea and restlessness.",
            "Zebra": "The zebra lives in herds. Its stripes confuse flies.",
            "Zoë’s café ☕": "Naïve façade — “quoted” text, 日本語 and עברית. Aripiprazole is mentioned here too.",
            "Empty": "-",
        }.items(),
        1,
    )
)


class Breach(StagecastError):
    """A plugin does not keep its port; the message says how, and what would be right."""


Use = Callable[[Any, str], Awaitable[Any]]
"""Uses a plugin once, with a question, and returns all that came of it."""


async def search(plugin: Any, question: str) -> Sequence[Passage]:
    """Search as the stage ``retrieval`` does."""
    found: Sequence[Passage] = await plugin.search(question, LIMIT, Scope())
    return found


async def rerank(plugin: Any, question: str) -> Sequence[Passage]:
    """Order passages as the stage ``reranking`` does."""
    ordered: Sequence[Passage] = await plugin.rerank(question, PASSAGES, LIMIT)
    return ordered


def prompt(question: str) -> Prompt:
    """Return what the stage ``generation`` would ask."""
    return prompts.build(question, PASSAGES, (), 1_000, query=question)


async def answer(plugin: Any, question: str) -> list[Any]:
    """Read an answer to its end."""
    async with aclosing(plugin.stream(prompt(question))) as pieces:
        return [piece async for piece in pieces]


async def embed(plugin: Any, question: str) -> Any:
    """Turn two texts into vectors."""
    return await plugin.embed([question, "The zebra lives in herds."])


def run_of(question: str) -> Run:
    """Return a run that stands before the stage, with passages and a conversation."""
    return Run(id="check", session_id="check", message_id="check", question=question, passages=list(PASSAGES))


async def pass_stage(plugin: Any, question: str) -> list[Any]:
    """Take a run through a stage."""
    async with aclosing(plugin.run(run_of(question))) as events:
        return [event async for event in events]


USES: dict[str, Use] = {
    "retriever": search,
    "reranker": rerank,
    "llm": answer,
    "embedder": embed,
    "stage": pass_stage,
}


async def used(kind: str, plugin: Any, question: str = QUESTION) -> Any:
    """Use a plugin once.

    Raises:
        Breach: It raised what is no :class:`~pipeline.errors.RunError`.
    """
    try:
        return await USES[kind](plugin, question)
    except RunError as failure:
        raise Breach(f"it failed ({failure}); it must work while it is checked") from failure
    except Exception as problem:
        raise Breach(
            f"it raised {type(problem).__name__}: {problem}; whatever can go wrong is raised as a RunError, in words "
            "for the client"
        ) from problem
