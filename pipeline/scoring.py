"""How well each sentence answers a question, beside its nearness in meaning.

The weights are chosen on 106 questions to three collections whose facts or documents are known, and by reading the
answers to eighty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.candidates import Sentence
from pipeline.ports import Passage
from pipeline.questions import NEGATION, RESEARCH, Part, kinds_of, stems

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]

TOPIC, WORDS, PASSAGE = 0.15, 0.2, 0.25
"""Beside the cosine: of the question's words in sentence or headings, in the sentence; of the passage's score."""
GIVEN, SECTION, FIRST = 0.3, 0.2, 0.15
"""For words of the kind asked for; for a place below a heading of that kind; for the first place below it."""
LATE, STATED, LISTED = 0.3, 1.4, 1.6
"""Shares of ``GIVEN``: the words come late in the sentence; it is about them ("The symptoms are ..."), with a list."""
EARLY_CHARS = 45
ANSWERED, DEFINES, OPENS = 0.3, 0.5, 0.05
"""For a place below the very question, for saying what the thing asked for is, for being the first of its section."""
RESTRICTED = 0.15
"""For all that the question says of its subject besides its name."""
OFF_SUBJECT, INEXACT = 0.5, 0.1
"""Lost in a document about something else; where its title says more than the question."""
EMPTY, UNSPECIFIC, DANGLING, UNASKED, NEGATED = 0.2, 0.25, 0.2, 0.3, 0.2
"""Lost for the faults of :mod:`pipeline.openings`; for definitions, research and prohibitions that nobody asked for."""
ENOUGH = 0.5
"""Share of the question's further words that makes a sentence fit it."""
NEARLY = 0.85
"""Share of the best score that the best fitting sentence must have, so that only fitting ones are taken."""

_NOT = re.compile(r"\bnot\b|n['’]t\b", re.IGNORECASE)
_STATES = re.compile(r"\b(?:includes?|is|are|involves?|consists? of)\b")
_IS = re.compile(
    r"\s(?:(?:is|are|was|were)\s(?:an?|the|any|one\sof|when|called)|means?|refers?\sto|describes?|"
    r"(?:occurs?|happens?)\swhen)\s"
)
_OBJECT = re.compile(r"\b(?:for|of|with|after|during)\s+(.+)$", re.IGNORECASE)
_ASIDE = re.compile(r"\([^)]*\)")


class Judgement(msgspec.Struct, frozen=True):
    """Of all candidates, in their order, as answers to one part of a question."""

    score: Scores
    fits: Mask
    """Which may stand beside the best."""


def in_general(asked: frozenset[str], found: Sequence[Sentence], passages: Sequence[Passage]) -> Scores:
    """Return what words and passages add, and what faults take away; a word counts the more, the fewer have it."""
    having = {word: sum(word in s.words for s in found) for word in asked}
    weight = {word: math.log(1 + len(found) / (1 + count)) for word, count in having.items()}
    total = sum(weight.values()) or 1.0

    def weighed(words: frozenset[str]) -> float:
        return sum(weight[word] for word in asked & words) / total

    def worth(s: Sentence) -> float:
        dangles = s.is_broken * (2 if s.points_back else 1) or (s.position == 0 and (s.points_back or s.goes_on))
        loss = EMPTY * s.is_empty + UNSPECIFIC * s.is_unspecific + DANGLING * dangles
        return (
            TOPIC * weighed(s.words | s.topic) + WORDS * weighed(s.words) + PASSAGE * passages[s.passage].score - loss
        )

    return np.array([worth(s) for s in found])


def judge(part: Part, general: Scores, found: Sequence[Sentence], passages: Sequence[Passage]) -> Judgement:
    """Add to the general score what counts for one part of the question."""
    titles = _Titles(part, passages)
    given = [_given(part, s.text) for s in found]
    kinship = [_kinship(part, s.above, titles, s.passage) for s in found]
    own = [
        GIVEN * has
        + (SECTION + FIRST * (s.opens and bool(part.kinds))) * kin
        + _form(part, titles, s, has)
        + RESTRICTED * titles.restriction(s)
        - titles.loss(s)
        for s, has, kin in zip(found, given, kinship, strict=True)
    ]
    score = general + np.array(own)
    has_kind = [has > 0 or kin > 0 for has, kin in zip(given, kinship, strict=True)]
    return Judgement(score, _fitting(part, titles.common, found, score, has_kind))


class _Titles:
    """Tells documents about the question's subject from others."""

    def __init__(self, part: Part, passages: Sequence[Passage]) -> None:
        self.words = titles = [stems(passage.title) for passage in passages]
        self.exact = [share(title, part.words) for title in titles]
        self.named: frozenset[str] = max((part.subject & title for title in titles), key=len, default=frozenset())
        """The question's words in the title that has most of them."""
        self._further = part.subject - self.named
        most = len(self.named)
        self._about = [len(part.subject & t) == most or (bool(t) and t <= part.words) for t in titles]
        about = [title for title, is_about in zip(titles, self._about, strict=True) if is_about]
        self.common = part.words.intersection(*about) if self.named else frozenset()
        """The question's words in the titles of all documents about it."""

    def restriction(self, s: Sentence) -> float:
        """Return the share of the subject's words beyond the title ("in children") that a sentence about it has."""
        return share(self._further, s.words) if self.named and self._about[s.passage] else 0.0

    def loss(self, s: Sentence) -> float:
        """Return what a sentence loses by its document; half of it if it names the subject itself."""
        if not self.named:
            return 0.0
        off = 0.0 if self._about[s.passage] else 0.5 if self.named <= s.words else 1.0
        return OFF_SUBJECT * off + INEXACT * (1 - self.exact[s.passage])


def _given(part: Part, text: str) -> float:
    """Return how much of what is asked for a sentence has: nothing, some in passing, or that it is about it."""
    found = [match.start() for kind in part.kinds if (match := kind.given.search(text))]
    if not found:
        return 0.0
    if (first := min(found)) > EARLY_CHARS:
        return LATE
    if not (stated := _STATES.search(text, first, first + 80)):
        return 1.0
    return LISTED if ":" in text[stated.start() : stated.end() + 2] else STATED


def _kinship(part: Part, above: str, titles: _Titles, n: int) -> float:
    """Return 1 for a heading of a kind asked for, -0.5 for one of other kinds or of the contrary, 0 for others.

    The share of the question's further words that a heading has is added, or counts instead of less.
    """
    if part.is_open and not part.negates and _NOT.search(above):
        return -0.5
    own = share(part.subject - titles.common, stems(above))
    kinds = kinds_of(above) if part.kinds else ()
    if any(kind in part.kinds for kind in kinds):
        other = _OBJECT.search(above)
        return 0.3 if other and not stems(other[1]) <= part.words | titles.words[n] else 1.0 + own
    return own or (-0.5 if kinds else 0.0)


def _form(part: Part, titles: _Titles, s: Sentence, has: float) -> float:
    """Return what a sentence gains or loses by being a definition, an answer to the very question, and the like."""
    worth = OPENS * s.opens
    if s.above.endswith("?") and not (part.is_open and _NOT.search(s.above)):
        worth += ANSWERED * share(part.words, stems(s.above)) * (1 if s.opens else 0.5)
    if defines(s, part.subject):
        worth += _defining(titles, s) if part.defines else -UNASKED * bool(part.kinds)
    if part.is_open and not part.negates and NEGATION.search(s.text, 0, 80):
        worth -= NEGATED
    if RESEARCH not in part.kinds and RESEARCH.given.search(s.text):
        worth -= UNASKED * (1 - min(has, 1) / 2)
    return worth


def _defining(titles: _Titles, s: Sentence) -> float:
    """Return what a definition is worth: most where the title is just what is asked for, and no section is above."""
    return DEFINES * (1 + titles.exact[s.passage]) / (4 if kinds_of(s.above) else 2)


def defines(s: Sentence, subject: frozenset[str]) -> bool:
    """Return whether a sentence says what the subject is: "Gout is a ...", "Asthma (AZ-ma) is a ..."."""
    verb = _IS.search(s.text, 0, 160)
    named = stems(_ASIDE.sub("", s.text[: verb.start()])) if verb else frozenset()
    return bool(subject) and subject <= named and len(named) <= len(subject) + 2


def _fitting(
    part: Part, common: frozenset[str], found: Sequence[Sentence], score: Scores, has_kind: Sequence[bool]
) -> Mask:
    """Return which sentences have what is asked for, stand beside the best of those, or go on from one; or all of them.

    It is all where the best of those is much worse than the best of all.
    """
    rest = (part.subject if part.kinds else part.words) - common

    def fits(i: int) -> bool:
        words = found[i].words
        if part.defines:
            return defines(found[i], part.subject)
        return has_kind[i] or (share(rest, words) >= ENOUGH if part.kinds else bool(rest & words))

    fit = np.array([fits(i) for i in range(len(found))])
    best = int(np.where(fit, score, -np.inf).argmax())
    if not fit[best] or score[best] < NEARLY * score.max():
        return np.ones(len(found), bool)
    home = found[best]
    near = range(3) if part.defines else range(1) if part.kinds else range(-1, 2)
    beside = [s.passage == home.passage and s.position - home.position in near for s in found]
    behind = [s.points_back and i > 0 and bool(fit[i - 1]) for i, s in enumerate(found)]
    mask: Mask = fit | np.array(beside) | np.array(behind)
    return mask


def share(asked: frozenset[str], words: frozenset[str]) -> float:
    """Return how many of the words asked for are among ``words``, as a share; 0 of none."""
    return len(asked & words) / len(asked) if asked else 0.0
