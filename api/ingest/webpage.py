"""HTML: what a reader would see of a page's main part, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, Tag

from api.ingest.document import Document, Refused, document, escaped

UNREAD = """
    script style nav aside footer noscript template iframe object embed svg canvas audio video map button input select
    textarea datalist dialog head title link meta
"""
DROPPED = frozenset(UNREAD.split())
DROPPED_ROLES = frozenset(("navigation", "banner", "contentinfo", "search", "complementary", "dialog"))
PHRASING = """
    a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s samp small span
    strike strong sub sup time tt u var wbr
"""
INLINE = frozenset(PHRASING.split())
CODE = ("code", "kbd", "samp", "tt")
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
UNSEEN = re.compile(r"display:none|visibility:hidden|(?:font-size|opacity):0(?![.\d])")
LINE_BREAK = "\x1f"
MAX_CELL_CHARS = 300
"""A table with a longer cell is there for the layout."""

AS_BROWSERS_DO = {
    "iso-8859-1": "windows-1252",
    "latin-1": "windows-1252",
    "us-ascii": "windows-1252",
    "utf-16": "utf-8",
    "utf-16le": "utf-8",
    "utf-16be": "utf-8",
}
"""Encodings that a page declares, and what it has then."""


def read_webpage(path: Path, default_id: str) -> Iterator[Document]:
    """Yield the document: the page's main part, its title, its canonical address for url.

    Raises:
        Refused: It is empty, shows no text, or is nested too deeply.
    """
    data = path.read_bytes()
    if not data.strip():
        raise Refused("is empty")
    try:
        soup = BeautifulSoup(_decoded(data), "html.parser")
        text = _text(soup)
    except RecursionError:
        raise Refused("is nested too deeply") from None
    fields = {"id": default_id, "title": _title(soup), "url": _canonical(soup)}
    yield document(text, fields, path=str(path), default_title=path.stem)


def _decoded(data: bytes) -> str:
    """Decode by byte order mark, else as the page declares, else UTF-8 or what Windows wrote before it."""
    data, marked = EncodingDetector.strip_byte_order_mark(data)
    declared = marked or EncodingDetector.find_declared_encoding(data, is_html=True)
    try:
        if declared:
            return data.decode(marked or AS_BROWSERS_DO.get(declared.lower(), declared), "replace")
        return data.decode()
    except (LookupError, UnicodeError):
        return data.decode("utf-8" if declared else "windows-1252", "replace")


def _title(soup: BeautifulSoup) -> str | None:
    return " ".join(soup.title.get_text().split()) if soup.title else None


def _canonical(soup: BeautifulSoup) -> str | None:
    link = soup.find("link", rel="canonical", href=True)
    return str(link["href"]) if link else None


def _text(soup: BeautifulSoup) -> str:
    """Return the text of the main part, or of the whole page where that shows none."""
    articles = soup.find_all("article")
    main = soup.find("main") or soup.find(role="main") or (articles[0] if len(articles) == 1 else None)
    return (main and _Writer(main).text()) or _Writer(soup).text()


class _Writer:
    """Goes through the elements of a page and puts down its blocks."""

    def __init__(self, root: Tag) -> None:
        self._blocks: list[tuple[str, bool]] = []
        self._words: list[str] = []
        self._numbers: list[int] = []
        self._marker = ""
        self._walk(root)
        self._end()

    def text(self) -> str:
        """Return Markdown: a line for each item of a list, blank lines between all other blocks."""
        parts: list[str] = []
        after_item = False
        for block, is_item in self._blocks:
            parts.append(("\n" if after_item and is_item else "\n\n") + block)
            after_item = is_item
        return "".join(parts)

    def _walk(self, element: Tag) -> None:
        for child in element.children:
            if isinstance(child, Tag):
                self._take(child)
            elif type(child) is NavigableString:
                self._words.append(child)

    def _take(self, tag: Tag) -> None:
        if _is_dropped(tag):
            return
        if tag.name in CODE:
            self._words.append(_seen(tag))
        elif tag.name in INLINE:
            self._walk(tag)
        elif tag.name == "br":
            self._words.append(LINE_BREAK)
        else:
            self._end()
            self._take_block(tag)
            self._end()

    def _take_block(self, tag: Tag) -> None:
        if tag.name in HEADINGS and not self._numbers:
            self._put_block("#" * int(tag.name[1]) + " ", _line(tag).rstrip("¶# "))
        elif tag.name in ("ul", "ol"):
            self._take_list(tag, first=1 if tag.name == "ol" else 0)
        elif tag.name == "dd" or (tag.name == "li" and not self._numbers):
            self._marker = "- "
            self._take_list(tag, first=0)
        elif tag.name == "table" and _is_data(tag):
            self._put_block("", _table(_rows(tag)))
        elif tag.name == "pre":
            self._put_block("", _fenced(tag.get_text()))
        else:
            self._mark(tag)
            self._walk(tag)

    def _take_list(self, tag: Tag, first: int) -> None:
        self._numbers.append(first)
        self._walk(tag)
        self._end()
        self._numbers.pop()
        self._marker = ""

    def _mark(self, tag: Tag) -> None:
        if tag.name == "li":
            self._marker = f"{self._numbers[-1]}. " if self._numbers[-1] else "- "
            self._numbers[-1] += bool(self._numbers[-1])

    def _end(self) -> None:
        """Put down the words gathered so far; two line breaks in a row part paragraphs."""
        words, self._words = "".join(self._words), []
        for paragraph in re.split(rf"{LINE_BREAK}\s*{LINE_BREAK}", words):
            line = " ".join(paragraph.replace(LINE_BREAK, " ").split())
            if line and self._numbers:
                self._blocks.append(("  " * (len(self._numbers) - 1) + (self._marker or "  ") + line, True))
                self._marker = ""
            elif line:
                self._blocks.append((escaped(line), False))

    def _put_block(self, marks: str, block: str) -> None:
        if block:
            self._blocks.append((marks + block, False))


def _is_dropped(tag: Tag) -> bool:
    """Return whether an element is not seen, or is not of the page's own text."""
    if tag.name in DROPPED or tag.get("role") in DROPPED_ROLES:
        return True
    style = "".join(str(tag.get("style", "")).lower().split())
    if "hidden" in tag.attrs or tag.get("aria-hidden") == "true" or UNSEEN.search(style):
        return True
    return tag.name == "header" and not tag.find(HEADINGS)


def _line(tag: Tag) -> str:
    return " ".join(_seen(tag).split())


def _seen(tag: Tag) -> str:
    pieces = [
        _seen(child) if isinstance(child, Tag) else child
        for child in tag.children
        if (isinstance(child, Tag) and not _is_dropped(child)) or type(child) is NavigableString
    ]
    text = "".join(pieces)
    if tag.name in CODE:
        return f"`{text}`" if text.strip() and "`" not in text else text
    return text if tag.name in INLINE else f" {text} "


def _is_data(table: Tag) -> bool:
    """Return whether a table holds values, not the layout of the page."""
    rows = _rows(table)
    is_grid = max((len(row) for _, row in rows), default=0) > 1 and not table.find("table")
    return is_grid and all(len(cell) <= MAX_CELL_CHARS for _, row in rows for cell in row)


def _rows(table: Tag) -> list[tuple[bool, list[str]]]:
    """Return of each row whether it is a head, and its cells."""
    rows = []
    for row in table.find_all("tr"):
        cells = row.find_all(("td", "th"), recursive=False)
        is_head = bool(cells) and all(cell.name == "th" for cell in cells)
        rows.append((is_head, [_line(cell).replace("|", "\\|") for cell in cells]))
    return rows


def _table(rows: list[tuple[bool, list[str]]]) -> str:
    """Return rows as a Markdown table, whose head is empty where the page has none."""
    width = max(len(cells) for _, cells in rows)
    lines = [cells + [""] * (width - len(cells)) for _, cells in rows if any(cells)]
    if not lines:
        return ""
    head = lines.pop(0) if rows[0][0] and any(rows[0][1]) else [""] * width
    drawn = [head, ["---"] * width, *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in drawn)


def _fenced(code: str) -> str:
    longest = max(map(len, re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{code.strip()}\n{fence}" if code.strip() else ""
