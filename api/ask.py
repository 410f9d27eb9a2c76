"""``stagecast ask``: one question answered in the terminal."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Any

import msgspec
from rich.console import Console

from api.ingest.sample import load_sample
from api.runs import new_run
from api.settings import Settings
from api.system import System, running, warm_all
from pipeline.text import clean


async def answer(settings: Settings, question: str, session_id: str | None) -> int:
    """Stream the answer to standard output, stages and sources to standard error; return the exit code."""
    console = Console(stderr=True, highlight=False, markup=False)
    with console.status("Starting ...") as waiting:
        async with running(settings, share=True) as system:
            await warm_all(system)
            await load_sample(system)
            waiting.stop()
            return await _stream(system, question, session_id, console)


async def _stream(system: System, question: str, session_id: str | None, console: Console) -> int:
    run = new_run("", clean(question), clean(session_id) if session_id else None, {})
    await system.runs.start(run)
    last = ""
    async with aclosing(system.bus.read(run.id)) as batches:
        async for frames in batches:
            for frame in frames:
                event = msgspec.json.decode(frame.partition(b"data: ")[2])
                _show(event, console)
                last = event["type"]
    for source in run.sources:
        console.print(f"[{source.n}] {source.title}" + (f" - {source.url}" if source.url else ""), style="dim")
    return 0 if last == "done" else 1


def _show(event: dict[str, Any], console: Console) -> None:
    kind, content = event["type"], event["content"]
    if kind == "token":
        sys.stdout.write(content)
        sys.stdout.flush()
    elif kind == "error":
        console.print(f"\n{content['message']} ({content['code']})", style="red")
    elif kind.endswith("_complete"):
        if kind == "generation_complete":
            sys.stdout.write("\n")
            sys.stdout.flush()
        hidden = {"stage", "status", "elapsed_ms"}
        facts = ", ".join(f"{name} {value}" for name, value in content.items() if name not in hidden)
        console.print(f"{content['stage']}: {content['elapsed_ms']:.0f} ms ({facts})", style="dim")
