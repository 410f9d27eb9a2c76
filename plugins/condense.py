"""The stage ``condense``: makes a question that leans on the conversation stand alone, before it is searched for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from pipeline import prompts
from pipeline.events import CondenseComplete, Condensed, CondenseStart, Event
from pipeline.followups import MAX_TOPIC_CHARS, Topic, cut, follow, leans, named, words
from pipeline.host import Host
from pipeline.ports import Finish, Run
from pipeline.text import UNSPACED, clean

log = structlog.get_logger()

LIMIT_S = 5.0
"""For the LLM's rewriting, in all; then rules do it."""
MAX_QUERY_CHARS = 500
"""A longer reply is no question."""
MAX_TURNS = 6
"""Follow-ups in a row that are gone through to find what the last one is about."""
TITLES = 3
"""Documents whose titles are looked for in a question; the best that the retriever finds."""
QUOTES = " \t\"'`*“”‘’«»"


class Condense:
    """Leave in ``run.query`` a question that is understood alone; yield nothing when the question is one already.

    An LLM that ``rewrites`` is asked for it. Without one, or when it fails, its subject is carried over by rules.
    """

    def __init__(self, host: Host) -> None:
        self._llm = host.llm
        self._rewrites: bool = getattr(host.llm, "rewrites", False)
        self._retriever = host.retriever
        self._history_tokens = host.options.history_tokens

    async def run(self, run: Run) -> AsyncGenerator[Event]:
        """Yield nothing for a question that stands by itself, as the first of a conversation does."""
        asked = [turn.content for turn in run.history if turn.role == "user"]
        if not asked or not leans(run.question):
            return
        yield CondenseStart()
        query, method = await self._rewritten(run, asked), "llm"
        if not query:
            query, method = await self._carried(run, asked), "carried"
        run.query = query
        yield CondenseComplete(Condensed(query=query, method=method))

    async def _rewritten(self, run: Run, asked: Sequence[str]) -> str:
        """Return the LLM's rewriting, "" when there is none to be had."""
        if not self._rewrites or not prompts.recent(run.history, self._history_tokens):
            return ""
        try:
            async with asyncio.timeout(LIMIT_S):
                reply = await self._reply(run)
        except Exception as problem:  # noqa: BLE001  # whatever the LLM's trouble is, the question is searched for
            log.warning("condense.failed", run_id=run.id, error=type(problem).__name__)
            return ""
        return standalone(reply, [*asked, run.question])

    async def _reply(self, run: Run) -> str:
        """Return all that the LLM says, "" when it is cut off or too much."""
        prompt = prompts.rewriting(run.question, run.history, self._history_tokens)
        reply = ""
        async with aclosing(self._llm.stream(prompt)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return "" if piece.reason in {"length", "content_filter"} else reply
                reply += "".join(piece)
                if len(reply) > MAX_QUERY_CHARS:
                    return ""
        return reply

    async def _carried(self, run: Run, asked: Sequence[str]) -> str:
        """Return the question with what it is about, as the user's turns since the last whole question tell."""
        whole = [n for n, turn in enumerate(asked) if not leans(turn)]
        since = asked[whole[-1] if whole else 0 :]
        first = cut(since[0], MAX_TOPIC_CHARS)
        topic = Topic(first, await self._name(first, run))
        for turn in since[1:][-MAX_TURNS:]:
            if leans(turn):
                _, topic = follow(topic, turn, await self._name(turn, run))
        query, _ = follow(topic, run.question, await self._name(run.question, run))
        return query

    async def _name(self, question: str, run: Run) -> str:
        """Return the words in a question that name a document of the collection."""
        try:
            found = await self._retriever.search(question, TITLES, run.scope)
        except Exception as problem:  # noqa: BLE001  # retrieval comes next, and tells what is wrong
            log.warning("condense.failed", run_id=run.id, error=type(problem).__name__)
            return ""
        return named(question, [passage.title for passage in found])


def standalone(reply: str, asked: Sequence[str]) -> str:
    """Return the question in an LLM's reply; "" when it is none, or shares no word with what the user ``asked``."""
    lines = [line for line in clean(reply).splitlines() if line.strip()]
    query = lines[0].strip(QUOTES) if len(lines) == 1 else ""
    if not query or len(query) > MAX_QUERY_CHARS or prompts.REFUSAL in query:
        return ""
    known = set(words(" ".join(asked)))
    return query if known & set(words(query)) or UNSPACED.search(query) else ""
