"""Which sentences of the passages answer a question, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Sentence
from pipeline.ports import Passage
from pipeline.questions import Part
from pipeline.scoring import Judgement, Scores, in_general, judge

MAX_CHARS = 1400
"""Of an answer; its parts share them."""
MAX_SENTENCES, MAX_SENTENCES_LOOSE, MAX_SENTENCES_OF_PART = 6, 8, 4
"""Of an answer; of one to a question whose kind is not known; to each part of several."""
MIN_COSINE = 0.35
"""A question whose best sentence is farther away is refused; off-topic ones reach 0.1 to 0.2, others 0.55 and more."""
MIN_SHARE, MIN_SHARE_LOOSE, MIN_SHARE_DEFINING = 0.75, 0.68, 0.65
"""Of the best sentence's score; others are left out. Not knowing the kind, or behind a definition, less is enough."""
TOP = 2
"""Sentences whose mean counts as the best score: one that stands out must not shut out all others."""
RELEVANCE = 0.85
"""Weight of relevance against novelty, in maximal marginal relevance (Carbonell and Goldstein 1998)."""
REPEATED = 0.6
"""Share of common words above which a sentence says what one that was chosen says."""
LATER = 0.2
"""What a sentence loses as the first of an answer, if it points at another, goes on from it, or promises only."""
EQUAL = 0.97
"""Share of the best score at which the earlier sentence of a passage goes first."""
MAX_CHAIN = 3
"""A sentence and those before it without which it is not understood."""


def choose(
    asked: Sequence[Part],
    query: NDArray[np.float32],
    found: Sequence[Sentence],
    vectors: NDArray[np.float32],
    passages: Sequence[Passage],
) -> list[list[Sentence]]:
    """Return for each part asked the sentences that answer it best and repeat nothing, in order of reading.

    ``vectors`` are those of ``found``, shape ``(len(found), dimension)``; nothing is returned when none is near.
    """
    cosine = vectors @ query
    if cosine.max() < MIN_COSINE:
        return []
    general = cosine + in_general(frozenset().union(*(part.words for part in asked)), found, passages)
    choice = _Choice(found)
    return [
        chosen
        for n, part in enumerate(asked, 1)
        if (chosen := choice.take(judge(part, general, found, passages), *_limits(part, n, len(asked))))
    ]


def _limits(part: Part, n: int, count: int) -> tuple[float, int, int]:
    """Return the least share of the best score, the most sentences, and the most characters up to the ``n``-th part."""
    share = MIN_SHARE_DEFINING if part.defines else MIN_SHARE if part.kinds else MIN_SHARE_LOOSE
    alone = MAX_SENTENCES if part.defines or part.kinds else MAX_SENTENCES_LOOSE
    return share, MAX_SENTENCES_OF_PART if count > 1 else alone, MAX_CHARS * n // count


class _Choice:
    """Takes sentences, for one part of the question after the other, and none that says what was taken before."""

    def __init__(self, found: Sequence[Sentence]) -> None:
        self._found = found
        self._likeness = np.zeros(len(found))
        self._later = np.array([LATER * (s.points_back or s.goes_on or s.is_unspecific) for s in found])
        self._chars = 0

    def take(self, judged: Judgement, share: float, limit: int, max_chars: int) -> list[Sentence]:
        """Return at most about ``limit`` sentences, the best first and the others in the order of their passages."""
        score = self._with_antecedents(judged.score)
        least = min(share * np.sort(score)[-TOP:].mean(), score[judged.fits].max())
        taken: list[int] = []
        gain = score - self._later
        while len(taken) < limit:
            gain[(self._likeness > REPEATED) | ~judged.fits | (score < least)] = -np.inf
            best = int(gain.argmax())
            chain = self._chain(best, taken)
            if np.isneginf(gain[best]) or (self._chars and self._chars + self._size(chain) > max_chars):
                break
            self._add(chain)
            taken += chain
            gain = RELEVANCE * score - (1 - RELEVANCE) * self._likeness
        return [self._found[i] for i in self._in_order(taken, score - self._later)]

    def _with_antecedents(self, score: Scores) -> Scores:
        """Return the scores; of a sentence that points at another, the mean of both."""
        means = [
            (score[i] + score[i - 1]) / 2 if self._follows(i) and not s.is_broken else score[i]
            for i, s in enumerate(self._found)
        ]
        return np.array(means)

    def _size(self, chain: Sequence[int]) -> int:
        return sum(len(self._found[i].text) for i in chain)

    def _add(self, chain: Sequence[int]) -> None:
        self._chars += self._size(chain)
        for i in chain:
            likeness = [_likeness(self._found[i], other) for other in self._found]
            self._likeness = np.maximum(self._likeness, likeness)

    def _chain(self, i: int, taken: Sequence[int]) -> list[int]:
        """Return a sentence behind those without which it is not understood."""
        chain = [i]
        while self._follows(chain[0]) and chain[0] - 1 not in taken and len(chain) < MAX_CHAIN:
            chain.insert(0, chain[0] - 1)
        return chain

    def _follows(self, i: int) -> bool:
        """Return whether a sentence points at the one before it among the candidates."""
        if i == 0 or not self._found[i].points_back:
            return False
        one, other = self._found[i - 1], self._found[i]
        return (one.passage, one.position + 1) == (other.passage, other.position)

    def _in_order(self, taken: Sequence[int], score: Scores) -> list[int]:
        """Keep what belongs together; begin with the best, then the rest of its passage, then the others."""
        if not taken:
            return []
        runs: list[list[int]] = []
        for i in sorted(taken):
            if runs and runs[-1][-1] == i - 1 and self._follows(i):
                runs[-1].append(i)
            else:
                runs.append([i])
        home = self._found[taken[0]].passage
        equals = [i for i in taken if self._found[i].passage == home and score[i] >= EQUAL * score[taken[0]]]
        first = min(equals, default=taken[0])
        runs.sort(key=lambda run: (first not in run, self._found[run[0]].passage != home, run[0]))
        return [i for run in runs for i in run]


def _likeness(one: Sentence, other: Sentence) -> float:
    """Return how much of ``other`` is said by ``one``: 1 with all its words, else the share of common ones (Jaccard).

    Where numbers differ it is half of that.
    """
    common = one.words & other.words
    if len(common) == len(other.words):
        return 1.0
    union = one.words | other.words
    return len(common) / len(union) * (0.5 if any(map(str.isdigit, union - common)) else 1)
