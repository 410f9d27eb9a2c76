"""The commands ``stagecast runs`` and ``stagecast replay``."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli_base import finished, quiet_settings


def runs(
    limit: Annotated[int, typer.Option(help="How many, latest first.", min=1, max=10_000)] = 20,
    owner: Annotated[str | None, typer.Option(help="Of this key's name only.")] = None,
    status: Annotated[str | None, typer.Option(help="running, completed, cancelled or error.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> None:
    """List the runs that are stored: when, how they ended, how long they took, what was asked."""
    from api.recorded import list_runs

    raise typer.Exit(finished(list_runs(quiet_settings(), limit, owner, status, as_json=as_json)))


def replay(
    run: Annotated[str, typer.Argument(help="A run's id, or its beginning.", show_default=False)],
    speed: Annotated[float, typer.Option(help="Times as fast as it was; 0: all at once.", min=0)] = 1.0,
    sse: Annotated[bool, typer.Option("--sse", help="Print the events byte for byte as they were sent.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KIND=NAME", help="Run it again with another retriever, reranker or llm."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what --with has changed as JSON.")] = False,
) -> None:
    """Stream a stored run again, or run it again with another part and show what that changes.

    With --with the stages before that part are not run: it is given what they left when the run was recorded. Nothing
    is stored.
    """
    from api.recorded import replay_run
    from api.rerun import rerun

    if changes:
        raise typer.Exit(finished(rerun(quiet_settings(), run, changes, as_json=as_json)))
    raise typer.Exit(finished(replay_run(quiet_settings(), run, speed, sse=sse)))
