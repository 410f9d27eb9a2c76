"""The stage ``generation``: has the LLM answer from the passages, and lets only through what a client can use."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from pipeline import prompts
from pipeline.citations import CitationFilter
from pipeline.events import (
    Event,
    GenerationComplete,
    GenerationCompleted,
    GenerationStart,
    GenerationStarted,
    SourceList,
    Sources,
    Tokens,
)
from pipeline.host import Host
from pipeline.ports import Finish, Passage, Run
from pipeline.text import TextCleaner

MAX_TOKEN_CHARS = 8_000
"""A longer piece is sent as several: six bytes a character, escaped, stay below a frame's limit."""
PLAIN = re.compile(rf"[^\[`\x00\x80-\U0010ffff]{{1,{MAX_TOKEN_CHARS}}}(?<! )")
"""Text in which, and at whose end, nothing is or may become what the filters change."""


class Generate:
    """Stream the LLM's answer, cited from ``run.passages``; refuse what they have nothing to do with."""

    def __init__(self, host: Host) -> None:
        self._llm = host.llm
        self._limit = host.options.sources
        self._floor: float = getattr(host.llm, "min_relevance", -1.0)
        self._history_tokens = host.options.history_tokens

    async def run(self, run: Run) -> AsyncGenerator[Event]:
        """Yield the sources first, then the answer's tokens."""
        passages = run.passages[: self._limit] if self._relevant(run.passages) else []
        run.sources = [passage.source(n) for n, passage in enumerate(passages, 1)]
        yield Sources(SourceList(sources=run.sources))
        yield GenerationStart(GenerationStarted(model=self._llm.model))
        if not passages:
            yield Tokens(list(split_words(prompts.REFUSAL)))
            yield GenerationComplete(GenerationCompleted(finish_reason="no_sources"))
            return
        prompt = prompts.build(run.question, passages, run.history, self._history_tokens, query=run.query)
        answer, finish = AnswerFilter(len(passages)), Finish("stop")
        async with aclosing(self._llm.stream(prompt)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    finish = piece
                elif passed := answer.feed(piece if isinstance(piece, list) else [piece]):
                    yield Tokens(passed)
        if rest := answer.flush():
            yield Tokens([rest])
        run.finish = finish
        yield GenerationComplete(GenerationCompleted(finish_reason=finish.reason))

    def _relevant(self, passages: list[Passage]) -> bool:
        """Judge by the best cosine; a retriever that gives none is trusted."""
        cosines = [p.scores["dense"] for p in passages if "dense" in p.scores]
        return bool(passages) and (not cosines or max(cosines) >= self._floor)


class AnswerFilter:
    """Lets only through what can be stored and cites a passage that there is; pieces stay pieces where they can."""

    def __init__(self, passages: int) -> None:
        self._cleaner = TextCleaner()
        self._citations = CitationFilter(passages)
        self._is_idle = True

    def feed(self, pieces: list[str]) -> list[str]:
        """Return what is certain so far, in tokens of at most ``MAX_TOKEN_CHARS``."""
        if self._is_idle and PLAIN.fullmatch(pieces[0] if len(pieces) == 1 else "".join(pieces)):
            return pieces if all(pieces) else [piece for piece in pieces if piece]
        texts = [self._citations.feed(self._cleaner.feed(piece)) for piece in pieces]
        self._is_idle = self._cleaner.is_idle and self._citations.is_idle
        return [part for text in texts for part in split_long(text)]

    def flush(self) -> str:
        """Return what was held back, at the end of the answer."""
        return self._citations.feed(self._cleaner.flush()) + self._citations.flush()


def split_long(text: str) -> Iterator[str]:
    """Yield the text in pieces of at most ``MAX_TOKEN_CHARS``."""
    for start in range(0, len(text), MAX_TOKEN_CHARS):
        yield text[start : start + MAX_TOKEN_CHARS]


def split_words(text: str) -> Iterator[str]:
    """Yield the text's words, each but the first with the space before it."""
    for n, word in enumerate(text.split(" ")):
        yield f" {word}" if n else word
