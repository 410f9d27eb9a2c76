"""The outline of a document: its sections, and the pieces of text that are put into chunks or cut further."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec

from pipeline.blocks import Block, Kind, blocks
from pipeline.breaks import breaks, is_closed
from pipeline.prose import inline
from pipeline.text import list_items

UnitKind = Kind | Literal["sentence", "strand"]

LINE = re.compile(r"\S[^\n]*")
STRAND = re.compile(r"\S.{30,110}?[;,\])](?:\s[\])])?(?=\s)|\S(?:.{0,78}\S)?(?=\s|\Z)|\S+", re.DOTALL)
"""Some clauses or words of a sentence, or one long word."""

MAX_LEAD_CHARS = 120
"""A longer paragraph without full stop is no title of the next one."""

# What a chunk costs that begins there, on the scale on which an empty chunk costs 1.
AT_BLOCK, AT_PART, IN_SENTENCE, AFTER_LEAD = 0.0, 0.1, 0.5, 1.0
AT_MARK = {";": 0.15, "]": 0.15, ",": 0.4, ")": 0.4}


class Unit(NamedTuple):
    """A piece of a section that stays whole if it can: ``text[start:end]``, trimmed."""

    kind: UnitKind
    start: int
    end: int
    section: int
    cost: float = AT_BLOCK
    """Of a chunk that begins with it."""
    tokens: int = 0
    """Set when it has been counted."""


class Section(msgspec.Struct):
    """What stands below one heading."""

    path: tuple[str, ...]
    """The headings above, the document's title left out."""
    start: int
    """Where its heading line begins."""
    heading: str = ""
    """The heading line; empty above the first heading, and for a heading that is a unit itself."""


class Outline:
    """Reads a document; ``units`` and ``sections`` are in its order.

    A heading that nothing stands below is a unit itself, unless it is the title.
    """

    def __init__(self, text: str, title: str) -> None:
        self.units: list[Unit] = []
        self.sections = [Section((), 0)]
        self._text = text
        self._title: str | None = _plain(title)
        self._open: list[tuple[int, str]] = []
        found = list(blocks(text))
        for i, block in enumerate(found):
            if block.kind == "heading":
                self._enter(block, is_leaf=_is_leaf(found, i))
            else:
                self._add(block)

    def _enter(self, block: Block, *, is_leaf: bool) -> None:
        while self._open and self._open[-1][0] >= block.level:
            self._open.pop()
        name = inline(block.title)
        is_title = _plain(name) == self._title
        self._title = None
        above = tuple(opened for _, opened in self._open if opened)
        self._open.append((block.level, "" if is_title else name))
        if is_leaf and not is_title:
            self.sections.append(Section(above, block.start))
            self.units.append(Unit("heading", block.start, block.end, len(self.sections) - 1))
        elif not is_leaf:
            path = above if is_title else (*above, name)
            self.sections.append(Section(path, block.start, self._text[block.start : block.end]))

    def _add(self, block: Block) -> None:
        section = len(self.sections) - 1
        last = self.units[-1] if self.units and self.units[-1].section == section else None
        if last and block.kind == "rule":
            self.units[-1] = last._replace(end=block.end)
            return
        cost = AFTER_LEAD if last and self._leads(last, block) else AT_BLOCK
        self.units.append(Unit(block.kind, block.start, block.end, section, cost))

    def _leads(self, last: Unit, block: Block) -> bool:
        """Return whether a unit is the title or the first words of the block below it."""
        is_short = block.kind != "text" or last.end - last.start <= MAX_LEAD_CHARS
        return last.kind == "text" and is_short and not is_closed(self._text[last.start : last.end])


def cut(text: str, unit: Unit) -> list[Unit]:
    """Return a unit's parts of the next smaller kind: items or lines, sentences, clauses, characters.

    The parts hold all that is not white space; one character is returned as it is.
    """
    if unit.kind == "list":
        return _parts(unit, "text", AT_PART, list_items(text, unit.start, unit.end))
    if unit.kind in ("table", "code", "rule"):
        return _parts(unit, "text", AT_PART, _matches(LINE, text, unit))
    if unit.kind == "sentence":
        return _strands(text, unit)
    if unit.kind == "strand":
        middle = _middle(text, unit.start, unit.end)
        return _parts(unit, "strand", IN_SENTENCE, [(unit.start, middle), (middle, unit.end)])
    starts = breaks(text, unit.start, unit.end)
    return _parts(unit, "sentence", AT_PART, (trimmed(text, a, b) for a, b in pairwise([*starts, unit.end])))


def _middle(text: str, start: int, end: int) -> int:
    """Return where to halve a strand: at a space if it has one."""
    middle = (start + end) // 2
    before, after = text.rfind(" ", start, middle + 1), text.find(" ", middle, end)
    return next((at for at in (before, after) if at > start), middle)


def _strands(text: str, unit: Unit) -> list[Unit]:
    strands = _parts(unit, "strand", IN_SENTENCE, _matches(STRAND, text, unit))
    costs = [unit.cost, *(AT_MARK.get(text[strand.end - 1], IN_SENTENCE) for strand in strands)]
    return [strand._replace(cost=cost) for strand, cost in zip(strands, costs, strict=False)]


def _matches(pattern: re.Pattern[str], text: str, unit: Unit) -> Iterator[tuple[int, int]]:
    return (match.span() for match in pattern.finditer(text, unit.start, unit.end))


def _parts(unit: Unit, kind: UnitKind, cost: float, spans: Iterable[tuple[int, int]]) -> list[Unit]:
    parts = [Unit(kind, start, end, unit.section, cost) for start, end in spans if start < end]
    parts[0] = parts[0]._replace(cost=unit.cost)
    return parts


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without the white space around it."""
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), start + len(part.rstrip())


def _is_leaf(found: list[Block], i: int) -> bool:
    """Return whether nothing stands below a heading."""
    return i + 1 == len(found) or (found[i + 1].kind == "heading" and found[i + 1].level <= found[i].level)


def _plain(title: str) -> str:
    return inline(title).casefold()
