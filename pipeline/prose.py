"""Markdown shown as one line of prose."""

from __future__ import annotations

import re
from html import unescape

from pipeline.blocks import ITEM, Kind, blocks, is_delimiter

ITEM_LINE = re.compile(rf"^(?:{ITEM.pattern})", re.MULTILINE)
LITERAL = re.compile(r"\\([!-/:-@\[-`{-~])|`([^`]+)`")
"""An escaped character, or code: what is in it is no markup."""
CELL_END = re.compile(r"(?<!\\)\|")
ITEM_END = re.compile(r"[;,.](?: (?:and|or))?$")

MARKUP = (
    (re.compile(r"<!--.{0,2000}?-->", re.DOTALL), ""),
    (re.compile(r"<(?:br|/?p|/?div)\b[^<>]*>", re.IGNORECASE), " "),
    (re.compile(r"</?(?:[abiu]|em|strong|span|su[bp]|small|mark|code|kbd|img)\b[^<>]*>", re.IGNORECASE), ""),
    (re.compile(r"<(https?://[^<>\s]+)>"), r"\1"),
    (re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)"), r"\1"),
    (re.compile(r"\s?\[\^?\d{1,3}(?:\s?[,–-]\s?\d{1,3})*\]"), ""),
    (re.compile(r"\*{3}([^*]+)\*{3}"), r"\1"),
    (re.compile(r"(?<![^\s(\[\"'“‘*—-])\*(?=[^\s*])([^*]+)(?<=[^\s*])\*(?!\*)"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<!\w)__(?=[^\s_])([^_]+)__(?!\w)"), r"\1"),
    (re.compile(r"(?<!\w)_(?=[^\s_])([^_]+)_(?!\w)"), r"\1"),
    (re.compile(r"~~([^~]+)~~"), r"\1"),
)
"""Removed in this order. Numbers in brackets are notes of the source, which no answer must seem to cite."""


def readable(text: str) -> str:
    """Return a passage, or a part of one, as one line without markup.

    Items of a list follow their introduction after a colon, joined by "; " and ended by a full stop; rows of
    a table name their columns where the head of the table is there.
    """
    line, before = "", ""
    for block in blocks(text):
        piece = _shown(block.kind, block.title or text[block.start : block.end])
        if piece:
            line = _joined(line, piece, before, block.kind)
            before = block.kind
    return line


def _joined(line: str, piece: str, before: str, kind: Kind) -> str:
    if not line or line[-1] in ".!?…。！？":
        return f"{line} {piece}".strip()
    if before == "heading" or kind in ("list", "table") or line[-1] == ":":
        return f"{line.rstrip(' :;,')}: {piece}"
    return f"{line.rstrip(' ;,')}; {piece}"


def _shown(kind: Kind, source: str) -> str:
    if kind == "list":
        return _ended("; ".join(ITEM_END.sub("", inline(item)) for item in _items(source)))
    if kind == "table":
        return _ended("; ".join(_rows(source.split("\n"))))
    if kind == "text":
        return inline(re.sub(r"^[ \t]*(?:>[ \t]?)+", "", source, flags=re.MULTILINE))
    if kind == "heading":
        return inline(source)
    return " ".join(source.split()) if kind == "code" else ""


def _items(source: str) -> list[str]:
    return [item for item in ITEM_LINE.sub("\0", source).split("\0")[1:] if item.strip()]


def _rows(lines: list[str]) -> list[str]:
    rows = [[inline(cell) for cell in CELL_END.split(line.strip().strip("|"))] for line in lines]
    if len(lines) > 2 and is_delimiter(lines[1]):
        return [_row(rows[0], row) for row in rows[2:]]
    kept = (row for row, line in zip(rows, lines, strict=True) if not is_delimiter(line))
    return [", ".join(filter(None, row)) for row in kept]


def _row(head: list[str], row: list[str]) -> str:
    """Return a row as "Nausea: Placebo 3%, Drug 10%"."""
    cells = [f"{name} {cell}".strip() for name, cell in zip(head[1:], row[1:], strict=False) if cell]
    return f"{row[0]}: {', '.join(cells)}" if cells and row[0] else row[0] or ", ".join(cells)


def _ended(line: str) -> str:
    return line if not line or line[-1] in ".!?…" else line + "."


def inline(text: str) -> str:
    """Return one block's text without emphasis, links, tags, notes and entities, white space collapsed."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match.group(1) or match.group(2))
        return f"\0{len(kept) - 1}\0"

    text = LITERAL.sub(keep, text.replace("\0", ""))
    for pattern, shown in MARKUP:
        text = pattern.sub(shown, text)
    text = re.sub("\0(\\d+)\0", lambda place: kept[int(place[1])], unescape(text))
    return " ".join(text.split())
