"""The LLM ``extractive``: answers with the passages' own sentences, cited; needs neither key nor network."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import prompts
from pipeline.host import Host
from pipeline.ports import Finish, Passage, Prompt
from pipeline.text import readable, sentences

MAX_SENTENCES = 5
MAX_UNSTORED = 24
"""Sentences embedded while the question waits, when the retriever keeps no vectors of them; chosen by their words."""
MIN_COSINE = 0.35
"""A question whose best sentence is farther away is refused; off-topic ones reach 0.1 to 0.3, others 0.6."""
MIN_SHARE = 0.75
"""Of the best sentence's score; others are left out."""
RELEVANCE = 0.72
"""Weight of relevance against diversity, in maximal marginal relevance (Carbonell and Goldstein 1998)."""
REPEATED = 0.92
"""Cosine above which a sentence says the same as one that was chosen."""
WORDS_WEIGHT = 0.15
PASSAGE_WEIGHT = 0.25

_WORD = re.compile(r"\w{3,}")
_STOP = frozenset(
    [
        "and",
        "are",
        "can",
        "could",
        "did",
        "does",
        "for",
        "from",
        "has",
        "have",
        "how",
        "into",
        "its",
        "may",
        "not",
        "should",
        "than",
        "that",
        "the",
        "their",
        "them",
        "there",
        "these",
        "they",
        "this",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
        "about",
        "tell",
    ]
)
_CLOSING = ".!?"


class Sentence(msgspec.Struct, frozen=True):
    """A candidate; ``passage`` is its passage's place among the sources, from 0, ``position`` its own in the passage."""

    passage: int
    position: int
    text: str
    shared: float
    """Share of the question's words that stand in it or its passage's title."""


class Extractive:
    """Chooses the sentences that answer best and differ most, and quotes them in the order of their passages."""

    model = "extractive"

    def __init__(self, host: Host) -> None:
        self.min_relevance = host.options.min_relevance
        self._embedder = host.embedder
        self._retriever = host.retriever

    async def stream(self, prompt: Prompt) -> AsyncGenerator[str | Finish]:
        """Yield the chosen sentences word by word, or the refusal."""
        chosen = await self._choose(prompt.question, prompt.passages)
        for word in _words(chosen) if chosen else _refusal():
            yield word
        yield Finish("stop" if chosen else "no_sources")

    async def _choose(self, question: str, passages: Sequence[Passage]) -> list[Sentence]:
        found = candidates(question, passages)
        stored = await self._stored(passages)
        if stored is None:
            found = sorted(found, key=lambda s: -s.shared - passages[s.passage].score)[:MAX_UNSTORED]
        if not found:
            return []
        if stored is None:
            texts = [f"{passages[s.passage].title}: {s.text}" for s in found]
            vectors = await self._embedder.embed([question, *texts])
            return choose(vectors[0], found, vectors[1:], passages)
        query = (await self._embedder.embed([question]))[0]
        return choose(query, found, np.stack([stored[s.passage][s.position] for s in found]), passages)

    async def _stored(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]] | None:
        """Return the vectors of each passage's sentences, if the retriever keeps them of these very texts."""
        keeps = getattr(self._retriever, "sentence_vectors", None)
        if keeps is None:
            return None
        stored: list[NDArray[np.float32]] = await keeps(passages)
        whole = all(len(vectors) == len(sentences(p.text)) for p, vectors in zip(passages, stored, strict=True))
        return stored if whole else None


def candidates(question: str, passages: Sequence[Passage]) -> list[Sentence]:
    """Return every sentence of the passages, in their order."""
    asked = _stems(question)
    return [
        Sentence(n, i, shown, len(asked & _stems(f"{passage.title} {passage.heading} {shown}")) / max(1, len(asked)))
        for n, passage in enumerate(passages)
        for i, (start, end) in enumerate(sentences(passage.text))
        if (shown := readable(passage.text[start:end]))
    ]


def choose(
    query: NDArray[np.float32], found: Sequence[Sentence], vectors: NDArray[np.float32], passages: Sequence[Passage]
) -> list[Sentence]:
    """Return at most five sentences, best by relevance and diversity, in the order of their passages."""
    cosine = vectors @ query
    if cosine.max() < MIN_COSINE:
        return []
    shared = np.array([s.shared for s in found])
    trust = np.array([passages[s.passage].score for s in found])
    score = cosine + WORDS_WEIGHT * shared + PASSAGE_WEIGHT * trust
    near = vectors @ vectors.T
    chosen = [int(score.argmax())]
    while len(chosen) < MAX_SENTENCES:
        likeness = near[:, chosen].max(axis=1)
        gain = np.where(likeness > REPEATED, -np.inf, RELEVANCE * score - (1 - RELEVANCE) * likeness)
        gain[score < MIN_SHARE * score[chosen[0]]] = -np.inf
        gain[chosen] = -np.inf
        if np.isneginf(gain.max()):
            break
        chosen.append(int(gain.argmax()))
    return [found[i] for i in sorted(chosen)]


def _words(chosen: Sequence[Sentence]) -> Iterator[str]:
    """Yield the answer's words, each with the space before it; a passage's sentences are a paragraph."""
    before = ""
    last = chosen[0].passage
    for sentence in chosen:
        if sentence.passage != last:
            before, last = "\n\n", sentence.passage
        for word in _cited(sentence).split(" "):
            yield before + word
            before = " "


def _cited(sentence: Sentence) -> str:
    closing = sentence.text[-1] if sentence.text[-1] in _CLOSING else "."
    return f"{sentence.text.rstrip(_CLOSING)} [{sentence.passage + 1}]{closing}"


def _refusal() -> Iterator[str]:
    first, *rest = prompts.REFUSAL.split(" ")
    yield first
    yield from (f" {word}" for word in rest)


def _stems(content: str) -> set[str]:
    """Return the first five letters of each word that carries meaning: enough to match plurals and tenses."""
    return {word[:5] for word in _WORD.findall(content.lower()) if word not in _STOP}
