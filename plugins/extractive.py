"""The LLM ``extractive``: answers with the passages' own sentences, cited; needs neither key nor network."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import prompts
from pipeline.breaks import is_closed
from pipeline.candidates import Sentence, candidates
from pipeline.host import Host
from pipeline.ports import Finish, Passage, Prompt
from pipeline.questions import Part, asked_last, stems
from pipeline.selection import choose
from pipeline.text import Span, sentences

MAX_UNSTORED = 24
"""Sentences embedded while the question waits, when the retriever keeps no vectors of them; chosen by their words."""

_CLOSING = ".!?"
_OPEN = " ,;:"


class Extractive:
    """Chooses the sentences that answer best and differ most, and quotes them, each with its passage's number."""

    model = "extractive"

    def __init__(self, host: Host) -> None:
        self.min_relevance = host.options.min_relevance
        self._embedder = host.embedder
        self._retriever = host.retriever

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Finish]:
        """Yield the chosen sentences word by word, or the refusal."""
        asked = asked_last(prompt.question, prompt.messages[-1]["content"])
        chosen = await self._choose(prompt.question, asked, prompt.passages)
        for word in _words(chosen) if chosen else _refusal():
            yield word
        yield Finish("stop" if chosen else "no_sources")

    async def _choose(self, question: str, asked: Sequence[Part], passages: Sequence[Passage]) -> list[list[Sentence]]:
        spans = [sentences(passage.text) for passage in passages]
        found = candidates(passages, spans)
        stored = await self._stored(passages, spans)
        if stored is not None and found:
            query = (await self._embedder.embed([question]))[0]
            vectors = np.stack([stored[s.passage][s.position] for s in found])
            return choose(asked, query, found, vectors, passages)
        words = stems(question)
        nearest = sorted(found, key=lambda s: -len(words & s.words) - passages[s.passage].score)[:MAX_UNSTORED]
        found = sorted(nearest, key=lambda s: (s.passage, s.position))
        if not found:
            return []
        vectors = await self._embedder.embed([question, *(f"{passages[s.passage].title}: {s.text}" for s in found)])
        return choose(asked, vectors[0], found, vectors[1:], passages)

    async def _stored(
        self, passages: Sequence[Passage], spans: Sequence[Sequence[Span]]
    ) -> list[NDArray[np.float32]] | None:
        """Return the vectors of each passage's sentences, if the retriever keeps them of these very texts."""
        keeps = getattr(self._retriever, "sentence_vectors", None)
        if keeps is None:
            return None
        stored: list[NDArray[np.float32]] = await keeps(passages)
        return stored if list(map(len, stored)) == list(map(len, spans)) else None


def _words(chosen: Sequence[Sequence[Sentence]]) -> Iterator[str]:
    """Yield the answer's words, each with the space before it; a passage's sentences to one part are a paragraph."""
    before = ""
    for part in chosen:
        for n, sentence in enumerate(part):
            if before and (n == 0 or sentence.passage != part[n - 1].passage):
                before = "\n\n"
            for word in _cited(sentence).split(" "):
                yield before + word
                before = " "


def _cited(sentence: Sentence) -> str:
    number = f"[{sentence.passage + 1}]"
    if sentence.text[-1] not in _CLOSING:
        return f"{sentence.text} {number}" if is_closed(sentence.text) else f"{sentence.text.rstrip(_OPEN)} {number}."
    return f"{sentence.text.rstrip(_CLOSING)} {number}{sentence.text[-1]}"


def _refusal() -> Iterator[str]:
    first, *rest = prompts.REFUSAL.split(" ")
    yield first
    yield from (f" {word}" for word in rest)
