"""The blocks of a Markdown text, found in one pass over its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple

MAX_HEADING_CHARS = 300
"""A longer heading is taken for text: no author means it, and headings are not searched like text."""

ITEM = re.compile(r"[ \t]*(?:[-*+•◦▪‣●○]|(\d{1,9})[.)])[ \t]+(?=\S)")
"""The marker of a list item, at the start of its line; the group is the number of a numbered one."""

FENCE = re.compile(r"[ \t]*(`{3,}+(?!.*`)|~{3,})")
RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*\r?$")

Kind = Literal["heading", "text", "list", "table", "code", "rule"]


class Block(NamedTuple):
    """A run of whole lines: ``text[start:end]`` without the line end."""

    kind: Kind
    start: int
    end: int
    level: int = 0
    """Of a heading, from 1."""
    title: str = ""
    """Of a heading, as written but without its marks."""


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of ``text`` in order; what lies between them is white space.

    A list keeps its nested lists and continued lines, a quotation counts as text.
    """
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    i = 0
    while i < len(lines):
        if not lines[i].strip():
            i += 1
            continue
        kind, end = _extent(lines, i)
        level, title = _heading(lines[i : i + 2]) if kind == "heading" else (0, "")
        yield Block(kind, starts[i], starts[end] - 1, level, title)
        i = end


def _extent(lines: list[str], i: int) -> tuple[Kind, int]:
    """Return what begins on line ``i``, and the line behind it."""
    if _is_atx(lines[i]) or RULE.match(lines[i]):
        return ("heading" if _is_atx(lines[i]) else "rule"), i + 1
    if FENCE.match(lines[i]):
        return "code", _fence_end(lines, i)
    if ITEM.match(lines[i]):
        return "list", _list_end(lines, i)
    if _is_table(lines, i):
        return "table", _table_end(lines, i)
    end = _text_end(lines, i)
    if end == i + 1 and _is_underlined(lines, i):
        return "heading", end + 1
    return "text", end


def _is_atx(line: str) -> bool:
    marks = line.lstrip(" ")
    rest = marks.lstrip("#")
    depth = len(marks) - len(rest)
    is_marked = 1 <= depth <= 6 and len(line) - len(marks) <= 3 and rest[:1] in " \t\r"
    return is_marked and len(line) <= MAX_HEADING_CHARS


def _is_underlined(lines: list[str], i: int) -> bool:
    """Return whether line ``i`` is a heading by the line of ``=`` or ``-`` below it."""
    below = lines[i + 1].rstrip() if i + 1 < len(lines) else ""
    marks = below.lstrip(" ")
    is_line = set(marks) in ({"="}, {"-"}) and len(below) - len(marks) <= 3
    return is_line and len(lines[i]) <= MAX_HEADING_CHARS


def _heading(lines: list[str]) -> tuple[int, str]:
    first = lines[0].strip()
    if not _is_atx(lines[0]):
        return (1 if "=" in lines[1] else 2), first
    rest = first.lstrip("#")
    title = rest.strip()
    bare = title.rstrip("#")
    closed = not bare or bare[-1] in " \t"
    return len(first) - len(rest), (bare if closed else title).strip()


def _fence_end(lines: list[str], i: int) -> int:
    opened = FENCE.match(lines[i])
    marks = opened.group(1) if opened else ""
    for j in range(i + 1, len(lines)):
        line = lines[j].strip()
        if line.startswith(marks) and set(line) == {marks[0]}:
            return j + 1
    return len(lines)


def _list_end(lines: list[str], i: int) -> int:
    """A list goes on over blank lines if an item or an indented line follows."""
    end = i + 1
    j = i
    while j < len(lines):
        if FENCE.match(lines[j]) and lines[j][0] in " \t":
            end = j = _fence_end(lines, j)
            continue
        if lines[j].strip():
            if j > i and not _goes_on(lines, j):
                break
            end = j + 1
        j += 1
    return end


def _goes_on(lines: list[str], j: int) -> bool:
    """Return whether line ``j``, which is not blank, belongs to the list above it."""
    line = lines[j]
    if FENCE.match(line) or _is_atx(line) or RULE.match(line):
        return False
    return bool(ITEM.match(line)) or line[0] in " \t" or bool(lines[j - 1].strip())


def _is_table(lines: list[str], i: int) -> bool:
    if lines[i].lstrip().startswith("|"):
        return True
    below = lines[i + 1].strip() if i + 1 < len(lines) else ""
    return "|" in lines[i] and is_delimiter(below)


def is_delimiter(line: str) -> bool:
    """Return whether a line is the one between the head of a table and its rows."""
    return "|" in line and "-" in line and set(line) <= set("|:- \t\r")


def _table_end(lines: list[str], i: int) -> int:
    while i < len(lines) and "|" in lines[i]:
        i += 1
    return i


def _text_end(lines: list[str], i: int) -> int:
    i += 1
    while i < len(lines) and lines[i].strip() and not _interrupts(lines, i):
        i += 1
    return i


def _interrupts(lines: list[str], i: int) -> bool:
    """Return whether line ``i`` begins a block of its own though no blank line is above it.

    A number does so only if it is 1: a line that begins with "2009. Since then" is no item.
    """
    line = lines[i]
    item = ITEM.match(line)
    if item:
        return item.group(1) in (None, "1")
    if FENCE.match(line) or _is_atx(line) or _is_table(lines, i):
        return True
    return bool(RULE.match(line)) or (line.strip()[0] in "=-" and _is_underlined(lines, i - 1))
