"""Questions with known answers, and what is right about the answers that were given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from api.evaluation.beir import BadEvaluation, numbered_lines
from pipeline import prompts
from pipeline.events import Source

CHECKS = ("source", "facts", "refusal", "citations")
REFUSED = "no_sources"

_CITATION = re.compile(r"\[(\d[\d,\s]*)\]")
_CODE = re.compile(r"(`+).*?\1", re.DOTALL)


class Question(msgspec.Struct, frozen=True):
    """A line of a file of questions."""

    question: Annotated[str, msgspec.Meta(min_length=1, max_length=5000)]
    relevant: list[str] = []
    """Documents that answer it; one of them must be cited."""
    facts_any: list[list[str]] = []
    """Of each group one string must stand in the answer, letter for letter."""
    answerable: bool = True
    """False: the collection has no answer, and the right one is to say so."""


class Answer(msgspec.Struct, frozen=True):
    """What was answered."""

    answer: str = ""
    sources: Sequence[Source] = ()
    finish_reason: str | None = None
    elapsed_ms: float = 0.0
    error: str = ""
    """Why there is no whole answer."""


class Verdict(msgspec.Struct, frozen=True):
    """What was right about one answer; None where there is nothing to check."""

    question: str
    source: bool | None
    """A relevant document is cited."""
    facts: bool | None
    refusal: bool
    """Refused if and only if there is no answer."""
    citations: bool
    """Every ``[n]`` is the number of a source."""
    answer: str
    cited: list[str]
    """The documents behind the citations, in order."""
    finish_reason: str | None
    elapsed_ms: float
    error: str

    @property
    def failed(self) -> list[str]:
        """Return the checks that it did not pass."""
        return [name for name in CHECKS if getattr(self, name) is False]


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions, one JSON object a line.

    Raises:
        BadEvaluation: It cannot be read, a line is no question, or there is none.
    """
    questions: list[Question] = []
    for number, line in numbered_lines(path):
        try:
            questions.append(msgspec.json.decode(line, type=Question))
        except msgspec.DecodeError as problem:
            raise BadEvaluation(
                f"{path}:{number}: {problem}; each line is "
                '{"question": ..., "relevant": [id, ...], "facts_any": [[text, ...], ...], "answerable": true}'
            ) from None
    if not questions:
        raise BadEvaluation(f"{path} has no question; each line is one, as JSON")
    return questions


def judge(wanted: Question, given: Answer) -> Verdict:
    """Say what is right about an answer; one that is refused, or failed, has no facts and no source."""
    numbers = _citations(given.answer)
    sources = {source.n: source.document_id for source in given.sources}
    cited = list(dict.fromkeys(sources[n] for n in numbers if n in sources))
    refused = given.finish_reason == REFUSED or prompts.REFUSAL.rstrip(".") in given.answer
    facts = all(any(fact in given.answer for fact in group) for group in wanted.facts_any)
    return Verdict(
        question=wanted.question,
        source=bool(set(cited) & set(wanted.relevant)) if wanted.answerable and wanted.relevant else None,
        facts=facts if wanted.answerable and wanted.facts_any else None,
        refusal=refused is not wanted.answerable and not given.error,
        citations=all(n in sources for n in numbers),
        answer=given.answer,
        cited=cited,
        finish_reason=given.finish_reason,
        elapsed_ms=round(given.elapsed_ms, 2),
        error=given.error,
    )


def _citations(answer: str) -> list[int]:
    """Return the numbers that the answer cites, in order; what stands between backticks cites nothing."""
    lists = _CITATION.findall(_CODE.sub("", answer))
    return [int(n) for each in lists for n in re.findall(r"\d{1,9}", each)]
