"""All checks by port, and one plugin put through those of its port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec

from pipeline.conformance import contracts as c
from pipeline.conformance.common import COMMON
from pipeline.conformance.uses import Breach

Check = Callable[[str, Any], Awaitable[None]]
PASSAGES: tuple[Check, ...] = (
    c.returns_passages, c.keeps_the_limit, c.puts_the_best_first, c.names_each_passage_once,
    c.tells_the_scores_of_its_parts,
)  # fmt: skip
CHECKS: dict[str, tuple[Check, ...]] = {
    "retriever": (*PASSAGES, c.finds_nothing_without_an_error, *COMMON),
    "reranker": (*PASSAGES, c.returns_only_what_it_was_given, c.takes_an_empty_list, c.says_what_orders, *COMMON),
    "llm": (c.yields_text, c.yields_what_can_be_sent, c.names_its_model, *COMMON),
    "embedder": (c.makes_unit_vectors, c.keeps_the_order, c.takes_an_empty_list, c.counts_tokens, *COMMON),
    "stage": (c.begins_and_ends, c.yields_what_can_be_sent, *COMMON),
}


class Verdict(msgspec.Struct, frozen=True):
    """What a check found: ``breach`` is empty when the plugin has passed it."""

    check: str
    what: str
    breach: str


def name_of(check: Check) -> str:
    """Return a check's name, as it is told: ``keeps-the-limit``."""
    return check.__name__.replace("_", "-")


async def verdict(check: Check, kind: str, plugin: Any) -> Verdict:
    """Put a plugin through one check."""
    what = (check.__doc__ or "").partition("\n")[0]
    try:
        await check(kind, plugin)
    except Breach as breach:
        return Verdict(name_of(check), what, str(breach))
    except Exception as problem:  # noqa: BLE001  # whatever it is, it is the plugin's fault and ends no other check
        return Verdict(name_of(check), what, f"it raised {type(problem).__name__}: {problem}")
    return Verdict(name_of(check), what, "")


async def verdicts(kind: str, plugin: Any) -> AsyncGenerator[Verdict]:
    """Put a plugin through all checks of its port, one after the other."""
    for check in CHECKS[kind]:
        yield await verdict(check, kind, plugin)
