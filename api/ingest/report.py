"""``stagecast ingest`` and ``stagecast reindex``: a progress bar, and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from api.ingest.ingest import Result, ingest, reindex
from api.ingest.readers import count, find
from api.settings import Settings
from api.system import running


class Rate(ProgressColumn):
    """Documents a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, nothing before the first document."""
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


async def ingest_paths(settings: Settings, paths: Sequence[Path]) -> int:
    """Ingest files and folders; return 0, or 1 if any failed."""
    console = Console(stderr=True, highlight=False)
    async with running(settings, share=True) as system:
        total = sum(count(file) for file, _ in find(paths))
        return await show(ingest(system, paths), total, console)


async def reindex_all(settings: Settings) -> int:
    """Embed every stored document anew; return 0, or 1 if any failed."""
    console = Console(stderr=True, highlight=False)
    async with running(settings, share=True, renew=True) as system:
        return await show(reindex(system), await system.documents.count(), console)


async def show(batches: AsyncGenerator[list[Result]], total: int, console: Console) -> int:
    """Draw a progress bar while the batches come; return 0, or 1 if any document failed."""
    counts: Counter[str] = Counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("documents", total=total)
            async with aclosing(batches):
                async for results in batches:
                    for result in results:
                        _report(result, console)
                    counts.update(result.status for result in results)
                    bar.advance(task, len(results))
    finally:
        console.print(f"{counts['stored']} stored, {counts['unchanged']} unchanged, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


def _report(result: Result, console: Console) -> None:
    if result.status == "failed":
        console.print(f"failed: {result.path}: {result.reason}", style="red", markup=False, soft_wrap=True)
