"""``stagecast ask``: one question answered in the terminal."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import Any

import msgspec
from rich.console import Console

from api.ingest.sample import load_sample
from api.settings import Settings
from api.system import System, running, warm_all
from pipeline.ports import Run

MAX_SHOWN_SOURCES = 8


async def answer(settings: Settings, question: str, session_id: str | None) -> int:
    """Stream the answer to standard output, stages and sources to standard error; return the exit code."""
    stages = Console(stderr=True, highlight=False)
    with stages.status("Starting ..."):
        async with running(settings, share=True) as system:
            await warm_all(system)
            await load_sample(system)
            stages.status("").stop()
            return await _stream(system, question, session_id, stages)


async def _stream(system: System, question: str, session_id: str | None, stages: Console) -> int:
    run = await system.runs.start(question, session_id, {})
    failed = False
    async with aclosing(system.bus.read(run.id)) as batches:
        async for frames in batches:
            for frame in frames:
                event = msgspec.json.decode(frame.partition(b"data: ")[2])
                _show(event, stages)
                failed = failed or event["type"] == "error"
    _show_sources(run, stages)
    return 1 if failed else 0


def _show(event: dict[str, Any], stages: Console) -> None:
    kind, content = event["type"], event["content"]
    if kind == "token":
        sys.stdout.write(content)
        sys.stdout.flush()
    elif kind == "error":
        stages.print(f"\n[red]{content['message']}[/] ({content['code']})")
    elif kind.endswith("_complete"):
        if kind == "generation_complete":
            sys.stdout.write("\n")
        facts = ", ".join(
            f"{key} {value}" for key, value in content.items() if key not in {"stage", "status", "elapsed_ms"}
        )
        stages.print(f"[dim]{content['stage']}: {content['elapsed_ms']:.0f} ms ({facts})[/]")


def _show_sources(run: Run, stages: Console) -> None:
    for source in run.sources[:MAX_SHOWN_SOURCES]:
        stages.print(f"[dim][{source.n}][/] {source.title}" + (f" - {source.url}" if source.url else ""), markup=True)
