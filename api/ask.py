"""``stagecast ask``: one question answered in the terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from itertools import count

import msgspec
from rich.console import Console

from api.client import Client, Numbered, Unknown, decoded, kind_of
from api.ingest.sample import load_sample
from api.runs import new_run
from api.settings import Settings
from api.system import System, running, warm_all
from api.terminal import shown
from pipeline.events import Done, Error, Event, GenerationComplete, Source, Sources, Token
from pipeline.text import clean


async def answer(settings: Settings, question: str, session_id: str | None) -> int:
    """Stream the answer to standard output, stages and sources to standard error; return the exit code."""
    console = _console()
    with console.status("Starting ...") as waiting:
        async with running(settings, share=True) as system:
            await warm_all(system)
            await load_sample(system)
            waiting.stop()
            return await show_answer(_events(system, question, session_id), console)


async def answer_from(url: str, key: str | None, question: str, session_id: str | None) -> int:
    """Stream the answer of a running server in the same way; return the exit code.

    Raises:
        Refused, Unreachable: The server does not answer it.
    """
    async with Client(url, key) as client:
        return await show_answer(client.ask(question, session_id=session_id))


def _console() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


async def _events(system: System, question: str, session_id: str | None) -> AsyncGenerator[Numbered]:
    run = new_run("", clean(question), clean(session_id) if session_id else None, {})
    await system.runs.start(run)
    numbers = count(1)
    async with aclosing(system.bus.read(run.id)) as batches:
        async for frames in batches:
            for frame in frames:
                yield next(numbers), decoded(frame.partition(b"data: ")[2])


async def show_answer(events: AsyncGenerator[Numbered], console: Console | None = None) -> int:
    """Write an answer to standard output as it comes, stages and sources to standard error; return the exit code."""
    console = console or _console()
    event: Event | Unknown | None = None
    sources: Sequence[Source] = ()
    async with aclosing(events):
        async for _, event in events:
            _show(event, console)
            sources = event.content.sources if isinstance(event, Sources) else sources
    for source in sources:
        place = f"[{source.n}] {source.title}" + (f" - {source.url}" if source.url else "")
        console.print(shown(place), style="dim")
    return 0 if isinstance(event, Done) else 1


def _show(event: Event | Unknown, console: Console) -> None:
    if isinstance(event, Token):
        sys.stdout.write(shown(event.content))
        sys.stdout.flush()
    elif isinstance(event, Error):
        console.print(shown(f"\n{event.content.message} ({event.content.code})"), style="red")
    elif kind_of(event).endswith("_complete"):
        if isinstance(event, GenerationComplete):
            sys.stdout.write("\n")
            sys.stdout.flush()
        content = msgspec.to_builtins(event.content)  # type: ignore[union-attr]  # every event has a content
        hidden = {"stage", "status", "elapsed_ms"}
        facts = ", ".join(f"{name} {value}" for name, value in content.items() if name not in hidden)
        console.print(shown(f"{content['stage']}: {content['elapsed_ms']:.0f} ms ({facts})"), style="dim")
