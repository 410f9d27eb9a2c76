"""The command ``stagecast``. Heavy imports are inside the commands, so that help and mistakes are answered at once."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from api import __version__
from api.cli_base import finished, quiet_settings, quieted
from api.cli_keys import keys
from api.cli_runs import replay, runs
from pipeline.errors import StagecastError

app = typer.Typer(
    name="stagecast",
    help="Answers questions from a document collection and shows its work: every stage and token is streamed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


app.add_typer(keys, name="keys")
app.command()(runs)
app.command()(replay)


def main() -> None:
    """Run the command line; an error of ours ends it with one message and exit code 1."""
    try:
        app(prog_name="stagecast")
    except StagecastError as problem:
        sys.exit(f"stagecast: {problem}")


def _version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it so
    if wanted:
        typer.echo(f"stagecast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; without keys only loopback.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when the code changes.")] = False,
) -> None:
    """Start the server.

    It brings its own PostgreSQL unless STAGECAST_DATABASE_URL names one, and fills an empty collection with samples.
    """
    from api import logs, server, settings

    configured = settings.load()
    logs.configure(configured.log_level)
    with contextlib.suppress(KeyboardInterrupt):
        if reload:
            server.serve_reloading(configured, host, port)
        else:
            server.serve(configured, host, port)


@app.command()
def ingest(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and folders: Markdown, text, HTML, PDF, JSON lines.", show_default=False)
    ],
) -> None:
    """Bring documents into the collection.

    Unchanged documents are skipped, changed ones replaced; a bad file is reported and does not stop the rest. The exit
    code is 1 if any failed. A server may run meanwhile.
    """
    from api.ingest.report import ingest_paths

    raise typer.Exit(finished(ingest_paths(quiet_settings(), paths)))


@app.command()
def reindex() -> None:
    """Embed the whole collection anew.

    Needed once after another embedder was chosen.
    """
    from api.ingest.report import reindex_all

    raise typer.Exit(finished(reindex_all(quiet_settings())))


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    session: Annotated[str | None, typer.Option(help="Go on with this conversation.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead, http://localhost:8000.")] = None,
    key: Annotated[str | None, typer.Option(help="One of that server's API keys.")] = None,
) -> None:
    """Answer a question in the terminal.

    The answer goes to standard output; stages with their times, and sources, to standard error.
    """
    from api.ask import answer, answer_from

    answering = answer_from(url, key, question, session) if url else answer(quiet_settings(), question, session)
    raise typer.Exit(finished(answering))


@app.command("eval")
def evaluate(  # noqa: PLR0917  # typer calls it by name
    path: Annotated[
        Path | None, typer.Argument(metavar="FOLDER|QUESTIONS", help="A BEIR folder, or questions.", exists=True)
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Ask these about FOLDER's documents, of any kind.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", exists=True, dir_okay=False, help="Compare two reports of --json."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which of FOLDER's qrels/*.tsv, if there are several.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server instead, http://localhost:8000.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build FOLDER's store anew.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the stores of all evaluations; nothing else.")] = False,
) -> None:
    """Measure retrieval on a BEIR folder, or check the answers to a file of questions.

    FOLDER goes into a store of its own, a database beside the collection's, which the next evaluation uses again.
    Without it, QUESTIONS are asked about the collection: lines of {"question", "relevant", "facts_any", "answerable"}.
    """
    from api.evaluation import command

    wanted = command.Wanted(
        path=path,
        questions=questions,
        compare=compare,
        split=split,
        url=url,
        as_json=as_json,
        fresh=fresh,
        drop=drop,
    )
    raise typer.Exit(finished(command.evaluate(quiet_settings(), wanted)))


@app.command()
def plugins(
    name: Annotated[str | None, typer.Argument(help="Show this one, and its own settings.", show_default=False)] = None,
) -> None:
    """List the plugins, installed and in force."""
    from api.listing import list_plugins, show_plugins

    if name is None:
        list_plugins(quiet_settings())
    else:
        show_plugins(quiet_settings(), name)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help="retriever, reranker, llm, embedder or stage.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Its name: lower case letters, digits, hyphens.", show_default=False)],
    folder: Annotated[Path, typer.Option(help="Where the package's folder is made.")] = Path(),
) -> None:
    """Write a plugin of one's own to begin with: a package with code, entry point and test."""
    from api.scaffold import write

    typer.echo(write(kind, name, folder))


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(help="A plugin's name, or kind:name where several have it.", show_default=False)
    ],
) -> None:
    """Put an installed plugin through the checks of its port.

    Retrievers and stages are asked about the collection, which a server may have open at the time.
    """
    from api.checking import check

    raise typer.Exit(finished(check(quiet_settings(), name)))


@app.command()
def doctor(
    url: Annotated[str | None, typer.Option(help="Look at the server at this address, as its clients meet it.")] = None,
    key: Annotated[str | None, typer.Option(help="One of that server's API keys.")] = None,
    port: Annotated[int, typer.Option(help="The port to serve on here.", min=1, max=65535)] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
) -> None:
    """Find out what is wrong with a set-up, and say what to change.

    Without --url: settings, port, plugins, database, collection, keys and models of this machine; the LLM is asked for
    the beginning of an answer. With it: what proxies on the way do to streams, which takes a quarter of a minute. The
    exit code is 1 if there is a fault.
    """
    from api.doctor import diagnose
    from api.doctor_here import here
    from api.doctor_url import over

    quieted()
    raise typer.Exit(finished(diagnose(over(url, key) if url else here(port), as_json=as_json)))


@app.command()
def schema() -> None:
    """Print the OpenAPI description of routes and events, as JSON."""
    from api.app import describe
    from api.boot import Boot

    typer.echo(describe(Boot(quiet_settings(), failed=str)))


@app.command()
def dashboard() -> None:
    """Print a dashboard for Grafana of what GET /metrics tells, as JSON to import."""
    from api.dashboard import dashboard

    typer.echo(dashboard())


@app.command()
def migrate() -> None:
    """Bring the database up to date.

    The server does so by itself when it starts.
    """
    from api.storage.database import opened

    async def upgrade() -> int:
        async with opened(quiet_settings(), share=True):
            typer.echo("The database is up to date.")
        return 0

    raise typer.Exit(finished(upgrade()))


if __name__ == "__main__":
    main()
