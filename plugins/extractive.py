"""The LLM ``extractive``: answers with the passages' own sentences, cited; needs neither key nor network."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import prompts
from pipeline.host import Host
from pipeline.ports import Finish, Passage, Prompt
from pipeline.text import readable, sentences

MAX_CHARS = 1400
"""Of an answer."""
MAX_SENTENCES = 9
MAX_UNSTORED = 24
"""Sentences embedded while the question waits, when the retriever keeps no vectors of them; chosen by their words."""
MIN_COSINE = 0.35
"""A question whose best sentence is farther away is refused; off-topic ones reach 0.1 to 0.2, others 0.55 and more."""
MIN_SHARE = 0.6
"""Of the best sentence's score; others are left out."""
RELEVANCE = 0.85
"""Weight of relevance against novelty, in maximal marginal relevance (Carbonell and Goldstein 1998)."""
REPEATED = 0.6
"""Share of common words above which a sentence says what one that was chosen says."""
TOPIC_WEIGHT, WORDS_WEIGHT, PASSAGE_WEIGHT = 0.3, 0.2, 0.25
"""Beside the cosine; these figures are chosen on 41 questions to two collections: 38 answers hold the facts."""

_WORD = re.compile(r"\w{3,}|\d+")
_STOP = frozenset(
    (
        "and are can could did does for from has have how into its may not than that the their them there these they "
        "this was were what when where which who whom why will with would you your about tell"
    ).split()
)
_CLOSING = ".!?"


class Sentence(msgspec.Struct, frozen=True):
    """A candidate; ``passage`` is its passage's place among the sources, ``position`` its own in it, both from 0."""

    passage: int
    position: int
    text: str
    words: frozenset[str]
    topic: frozenset[str]
    """Words of the title and headings above it."""


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
        found = candidates(passages)
        stored = await self._stored(passages)
        if stored is not None and found:
            query = (await self._embedder.embed([question]))[0]
            return choose(question, query, found, np.stack([stored[s.passage][s.position] for s in found]), passages)
        asked = stems(question)
        found = sorted(found, key=lambda s: -len(asked & s.words) - passages[s.passage].score)[:MAX_UNSTORED]
        if not found:
            return []
        vectors = await self._embedder.embed([question, *(f"{passages[s.passage].title}: {s.text}" for s in found)])
        return choose(question, vectors[0], found, vectors[1:], passages)

    async def _stored(self, passages: Sequence[Passage]) -> list[NDArray[np.float32]] | None:
        """Return the vectors of each passage's sentences, if the retriever keeps them of these very texts."""
        keeps = getattr(self._retriever, "sentence_vectors", None)
        if keeps is None:
            return None
        stored: list[NDArray[np.float32]] = await keeps(passages)
        whole = all(len(vectors) == len(sentences(p.text)) for p, vectors in zip(passages, stored, strict=True))
        return stored if whole else None


def candidates(passages: Sequence[Passage]) -> list[Sentence]:
    """Return every sentence of the passages, in their order."""
    return [
        Sentence(n, i, shown, stems(shown), stems(f"{passage.title} {passage.heading}"))
        for n, passage in enumerate(passages)
        for i, (start, end) in enumerate(sentences(passage.text))
        if (shown := readable(passage.text[start:end]))
    ]


def choose(
    question: str,
    query: NDArray[np.float32],
    found: Sequence[Sentence],
    vectors: NDArray[np.float32],
    passages: Sequence[Passage],
) -> list[Sentence]:
    """Return the sentences that answer best and repeat each other least, in the order of their passages.

    ``vectors`` are those of ``found``, shape ``(len(found), dimension)``; nothing is returned when none is near.
    """
    cosine = vectors @ query
    if cosine.max() < MIN_COSINE:
        return []
    score = cosine + _bonus(stems(question), found, passages)
    chosen: list[int] = []
    likeness = np.zeros(len(found))
    gain = score.copy()
    while len(chosen) < MAX_SENTENCES and not np.isneginf(gain.max()):
        best = int(gain.argmax())
        if chosen and sum(len(found[i].text) for i in (*chosen, best)) > MAX_CHARS:
            break
        chosen.append(best)
        likeness = np.maximum(likeness, [_likeness(found[best], other) for other in found])
        gain = RELEVANCE * score - (1 - RELEVANCE) * likeness
        gain[(likeness > REPEATED) | (score < MIN_SHARE * score[chosen[0]])] = -np.inf
    return [found[i] for i in sorted(chosen)]


def _bonus(asked: frozenset[str], found: Sequence[Sentence], passages: Sequence[Passage]) -> NDArray[np.float64]:
    """Return what words and passages add to the cosine; a word counts the more, the fewer sentences have it."""
    having = {word: sum(word in s.words for s in found) for word in asked}
    weight = {word: math.log(1 + len(found) / (1 + count)) for word, count in having.items()}
    total = sum(weight.values()) or 1.0

    def share(words: frozenset[str]) -> float:
        return sum(weight[word] for word in asked & words) / total

    return np.array(
        [
            TOPIC_WEIGHT * share(s.words | s.topic)
            + WORDS_WEIGHT * share(s.words)
            + PASSAGE_WEIGHT * passages[s.passage].score
            for s in found
        ]
    )


def _likeness(one: Sentence, other: Sentence) -> float:
    """Return the share of common words (Jaccard); 1 for a sentence with itself."""
    union = len(one.words | other.words)
    return len(one.words & other.words) / union if union else 1.0


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


def stems(content: str) -> frozenset[str]:
    """Return the first five letters of each word that carries meaning: enough to match plurals and tenses."""
    return frozenset(word[:5] for word in _WORD.findall(content.lower()) if word not in _STOP)
