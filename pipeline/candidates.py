"""The sentences of passages that an answer may be made of, and what each looks like by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from pipeline import openings
from pipeline.ports import Passage
from pipeline.questions import stems
from pipeline.text import Span, readable

_TITLE = re.compile(r"^[ \t]*#{1,6}[ \t]+(.+)$|([^.?!\n]{4,160}\?)", re.MULTILINE)
"""A heading, or a question that serves as one."""
_LEAD = re.compile(r"(?:^|(?<=[.!?]\s))([^\s.?!:#][^\n.?!]{8,200}:)\s+(?:(?:[-*+•]|\d{1,3}[.)])\s+)?\Z", re.MULTILINE)
"""What introduces a list whose items are sentences of their own."""

_REFERENCE = re.compile(r"\s?(?:\[\s?see\b[^\[\]]{1,300}\]|\(\s?see\b[^()]{1,300}\))", re.IGNORECASE)
"""To another place in the document, where the reader of an answer is not."""


class Sentence(msgspec.Struct, frozen=True):
    """A candidate; ``passage`` is its passage's place among the sources, ``position`` its own in it, both from 0."""

    passage: int
    position: int
    text: str
    """As shown: behind the introduction of the list that it begins, without a heading that ran into it."""
    above: str
    """The nearest heading, question or introduction above it."""
    opens: bool
    """It is the first one below that."""
    words: frozenset[str]
    """Stems of the text, and of the question that it answers."""
    topic: frozenset[str]
    """Stems of the title and headings above it."""
    points_back: bool
    """It is not understood without the one before it."""
    goes_on: bool
    is_empty: bool
    is_unspecific: bool
    is_broken: bool


def candidates(passages: Sequence[Passage], spans: Sequence[Sequence[Span]]) -> list[Sentence]:
    """Return every sentence of the passages, in their order; ``spans`` are those of each passage's text."""
    begins: dict[tuple[str, str], int] = {}
    for passage in passages:
        section = passage.document_id, passage.heading
        begins[section] = min(passage.position, begins.get(section, passage.position))
    found = []
    for n, passage in enumerate(passages):
        topic = stems(f"{passage.title} {passage.heading}")
        fresh = passage.position == begins[passage.document_id, passage.heading]
        found += [_sentence(n, line, topic) for line in _lines(passage, spans[n], fresh=fresh)]
    return found


class _Line(NamedTuple):
    """A sentence as shown, and its place."""

    position: int
    text: str
    above: str
    opens: bool


def _lines(passage: Passage, spans: Sequence[Span], *, fresh: bool) -> Iterator[_Line]:
    above, behind = passage.heading.rpartition(" > ")[2], 0
    for i, (start, end) in enumerate(spans):
        for title in _TITLE.finditer(passage.text, behind, start):
            above, fresh = (title[1] or title[2]).strip(), True
        shown = _REFERENCE.sub("", readable(passage.text[start:end])).strip()
        if lead := _LEAD.search(passage.text, behind, start):
            above, fresh, shown = lead[1], True, f"{readable(lead[1])} {shown}"
        if heading := openings.run_in_heading(shown):
            above, fresh, shown = heading, True, shown.removeprefix(heading)
        behind = end
        if shown:
            yield _Line(i, shown, above, fresh)
            fresh = False


def _sentence(n: int, line: _Line, topic: frozenset[str]) -> Sentence:
    text = line.text
    return Sentence(
        passage=n,
        position=line.position,
        text=text,
        above=line.above,
        opens=line.opens,
        words=stems(f"{line.above} {text}" if line.opens and line.above.endswith("?") else text),
        topic=topic,
        points_back=text[0].islower() or openings.needs_antecedent(text),
        goes_on=openings.goes_on(text),
        is_empty=openings.is_empty(text),
        is_unspecific=openings.is_unspecific(text),
        is_broken=openings.is_broken(text),
    )
