"""The commands ``stagecast keys ...``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli_base import finished, quiet_settings
from pipeline.errors import StagecastError

if TYPE_CHECKING:
    from api.storage.keys import Keys

keys = typer.Typer(no_args_is_help=True, help="Make, list and remove the keys that callers show.")


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, dot, hyphen.", show_default=False)],
) -> None:
    """Make a key and print it, this once.

    What is made with it belongs to NAME. Several keys may have one name: add the new one, give it out, remove the old.
    A running server knows it at once.
    """
    from api.access import OWNER

    if not OWNER.fullmatch(name):
        raise typer.BadParameter("1 to 64 letters, digits, dots, hyphens, underscores", param_hint="NAME")

    async def add(stored: Keys) -> None:
        key_id, key = await stored.add(name)
        typer.echo(f"Key {key_id} of {name}; it is shown this once:", err=True)
        typer.echo(key)

    _with_keys(add)


@keys.command("list")
def list_keys() -> None:
    """List the keys: id, name and age, never the key."""

    async def show(stored: Keys) -> None:
        for row in await stored.all():
            typer.echo(f"{row.id}  {row.created_at:%Y-%m-%d %H:%M}  {row.owner}")

    _with_keys(show)


@keys.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="A key's id, or a name: all of its keys.", show_default=False)],
) -> None:
    """Make a key open nothing any more, within two seconds; streams that it opened are cut."""

    async def remove(stored: Keys) -> None:
        if not await stored.remove(name):
            raise StagecastError(f"no key has the id or name {name!r}; `stagecast keys list` shows them")

    _with_keys(remove)


def _with_keys(work: Callable[[Keys], Coroutine[Any, Any, None]]) -> None:
    from api.storage.database import opened
    from api.storage.keys import Keys

    async def run() -> int:
        async with opened(quiet_settings(), share=True) as engine:
            await work(Keys(engine))
        return 0

    raise typer.Exit(finished(run()))
