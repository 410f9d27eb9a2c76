"""What ``stagecast eval`` is asked for, and who does it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from typer import BadParameter

from api.evaluation import asking, retrieval, store
from api.settings import Settings


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The command's arguments."""

    path: Path | None
    questions: Path | None
    compare: tuple[Path, Path] | None
    split: str | None
    url: str | None
    as_json: bool
    fresh: bool
    drop: bool


async def evaluate(settings: Settings, wanted: Wanted) -> int:
    """Do what is wanted and return the exit code.

    Raises:
        BadParameter: Nothing is named, or what does not go together.
        BadEvaluation: What was to be evaluated cannot be.
        ConfigurationError: Something cannot be started.
    """
    if wanted.compare:
        return retrieval.compare_files(*wanted.compare)
    if wanted.drop:
        names = await store.drop_all(settings)
        Console(stderr=True, highlight=False).print(f"Dropped: {', '.join(names) or 'nothing was there'}.")
        return 0
    if wanted.path is None:
        raise BadParameter("name a BEIR folder or a file of questions", param_hint="FOLDER|QUESTIONS")
    if wanted.url and (wanted.path.is_dir() or wanted.questions):
        raise BadParameter(
            "a server answers from its own collection; name a file of questions alone", param_hint="--url"
        )
    if wanted.path.is_dir() and not wanted.questions:
        return await retrieval.evaluate(settings, wanted.path, wanted.split, as_json=wanted.as_json, fresh=wanted.fresh)
    if wanted.url:
        return await asking.ask_server(wanted.url, wanted.path, as_json=wanted.as_json)
    questions, folder = (wanted.questions, wanted.path) if wanted.questions else (wanted.path, None)
    return await asking.ask_pipeline(settings, questions, folder, as_json=wanted.as_json, fresh=wanted.fresh)
