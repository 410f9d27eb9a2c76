"""Text from outside: made storable, cut into sentences, shown as prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from pipeline.blocks import ITEM, Block, blocks
from pipeline.breaks import LETTER, breaks, is_closed
from pipeline.prose import ITEM_LINE, readable

__all__ = ["MAX_SPAN_CHARS", "TextCleaner", "clean", "list_items", "readable", "sentences"]

MAX_SPAN_CHARS = 420
"""Items of a list are gathered into spans of at most this length."""

MAX_SENTENCE_CHARS = 600
"""A longer sentence is cut at semicolons, dashes or commas."""

PROSE_ITEM_CHARS = 110
"""Items that are longer than this on average are made of sentences, not gathered."""

MAX_LOOSE_ITEM_CHARS = 160
"""Longer paragraphs below "This includes:" are no items."""

MIN_WORDS = 3
MIN_OPEN_WORDS = 8
"""Of a sentence that lacks its full stop; with fewer words it is rather a heading."""

Span = tuple[int, int]

UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
"""Letters of scripts without spaces between words."""
NOTE = re.compile(r"[ \t]*([*_])(?!\1)[^*_]+\1\s*")
"""A paragraph wholly in italics: a caption, or a note on the document."""
LAST_MARKS = " \t\n\"'”’»*_`"


class TextCleaner:
    """Makes a stream of text storable: no NUL, no lone surrogates; all else is left as it is.

    PostgreSQL and JSON encoders refuse both. A surrogate pair that was cut in two is joined again: its first
    half is held back until the next piece.
    """

    def __init__(self) -> None:
        self._held = ""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back."""
        return not self._held

    def feed(self, piece: str) -> str:
        """Return what is certain so far."""
        if not self._held and (piece.isascii() or _encodes(piece)):
            return piece.replace("\0", "") if "\0" in piece else piece
        joined = (self._held + piece).replace("\0", "")
        self._held = joined[-1:] if "\ud800" <= joined[-1:] <= "\udbff" else ""
        return _paired(joined.removesuffix(self._held))

    def flush(self) -> str:
        """Return what was held back; the cleaner can then be used for another text."""
        held, self._held = self._held, ""
        return _paired(held)


def clean(text: str) -> str:
    """Return ``text`` without NUL, surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    cleaner = TextCleaner()
    return cleaner.feed(text) + cleaner.flush()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def sentences(text: str) -> list[Span]:
    """Return the spans of what can stand alone in an answer, in order and without overlap.

    These are sentences, and items of lists and tables gathered with the line (or heading) that introduces
    them; a long list gives several spans of whole items. Headings, questions, code and fragments are left
    out. :func:`readable` shows a span as prose.
    """
    finder = _Finder(text)
    for block in blocks(text):
        finder.take(block)
    finder.settle()
    return finder.found


class _Finder:
    """Goes through the blocks of a text; what may introduce the next block waits in ``_lead``."""

    def __init__(self, text: str) -> None:
        self.found: list[Span] = []
        self._text = text
        self._lead: Span | None = None
        self._is_heading = False
        self._items: list[Span] = []

    def take(self, block: Block) -> None:
        if block.kind == "text" and self._is_loose_item(block):
            self._items.append((block.start, block.end))
            return
        if self._ends_with_title():
            self._items.pop()
        if block.kind not in ("list", "table") or self._items:
            self.settle()
        if block.kind == "heading":
            self._lead = None if block.title.endswith("?") else (block.start, block.end)
            self._is_heading = True
        elif block.kind == "text" and not NOTE.fullmatch(self._text, block.start, block.end):
            self._take_text(block)
        elif block.kind == "list":
            self._take_list(list_items(self._text, block.start, block.end))
        elif block.kind == "table":
            self._items = list(_lines(self._text, block.start, block.end))
            self.settle()

    def settle(self) -> None:
        """Put down the items that were gathered, or a lead that introduced nothing if it is a sentence."""
        if self._items:
            for span in _gathered(self._lead, self._items):
                self.found += _shortened(self._text, *span)
        elif self._lead and not self._is_heading:
            self._put(*self._lead)
        self._lead, self._items, self._is_heading = None, [], False

    def _is_loose_item(self, block: Block) -> bool:
        """Return whether a paragraph without full stop is an item of "This includes:"."""
        if not self._lead or not self._text[slice(*self._lead)].endswith(":") or self._is_heading:
            return False
        item = self._text[block.start : block.end].rstrip()
        return len(item) <= MAX_LOOSE_ITEM_CHARS and item[-1] != ":" and not is_closed(item)

    def _ends_with_title(self) -> bool:
        """Return whether the last of several loose items is rather the title of what follows."""
        words = [self._text[start:end].split() for start, end in self._items]
        return len(words) > 1 and len(words[-1]) > 1 and _is_title(words[-1]) and not _is_title(words[0])

    def _take_text(self, block: Block) -> None:
        *complete, last = _trimmed(self._text, breaks(self._text, block.start, block.end), block.end)
        for span in complete:
            self._put(*span)
        if is_closed(self._text[slice(*last)]):
            self._put(*last)
        else:
            self._lead = last

    def _take_list(self, items: list[Span]) -> None:
        bodies = [(start + len(_marker(self._text, start)), end) for start, end in items]
        is_long = sum(end - start for start, end in bodies) > PROSE_ITEM_CHARS * len(items)
        if not is_long or sum(self._text[start].islower() for start, _ in bodies) > len(items) // 2:
            self._items = items
            self.settle()
            return
        self._lead = None
        for start, end in bodies:
            for span in _trimmed(self._text, breaks(self._text, start, end), end):
                self._put(*span)

    def _put(self, start: int, end: int) -> None:
        if _stands_alone(self._text[start:end]):
            self.found += _shortened(self._text, start, end)


def _stands_alone(sentence: str) -> bool:
    words = sentence.split()
    bare = sentence.strip(LAST_MARKS + "([“‘«>")
    if not bare or bare[-1] in "?:？؟" or not LETTER.search(bare) or bare.startswith("<!--"):
        return False
    first = bare.split(None, 1)[0]
    if first.islower() and not any(map(str.isdigit, first)):
        return False
    if not is_closed(sentence):
        return len(words) >= MIN_OPEN_WORDS and not _is_title(words)
    return len(words) >= MIN_WORDS or len(UNSPACED.findall(bare)) >= 2 * MIN_WORDS


def _is_title(words: list[str]) -> bool:
    long = [word for word in words if len(word) > 3]
    return sum(word[0].isupper() for word in long) > 0.7 * len(long)


def _trimmed(text: str, starts: list[int], end: int) -> list[Span]:
    """Return the spans between ``starts`` without the white space behind them."""
    return [(a, a + len(text[a:b].rstrip())) for a, b in pairwise([*starts, end])]


def _shortened(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield a span, or the parts of an endless one."""
    while end - start > MAX_SENTENCE_CHARS:
        cut = _cut(text, start, end)
        yield start, start + len(text[start:cut].rstrip())
        start = cut
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _cut(text: str, start: int, end: int) -> int:
    """Return where to cut so that the parts have about one length."""
    limit = min(MAX_SPAN_CHARS, (end - start) // -(-(end - start) // MAX_SPAN_CHARS) + 60)
    for mark in ("; ", "] ", " • ", " - ", " – ", ", ", " "):
        at = text.rfind(mark, start + limit // 3, start + limit)
        if at >= 0:
            return at + (1 if mark[0] == " " else 2)
    return start + limit


def list_items(text: str, start: int, end: int) -> list[Span]:
    """Return the spans of a list's items, nested ones too, each with its marker and the lines that go on."""
    starts = [match.start() for match in ITEM_LINE.finditer(text, start, end)]
    return _trimmed(text, starts, end)


def _marker(text: str, start: int) -> str:
    match = ITEM.match(text, start)
    return match.group() if match else ""


def _lines(text: str, start: int, end: int) -> Iterator[Span]:
    for line in text[start:end].split("\n"):
        yield start, start + len(line)
        start += len(line) + 1


def _gathered(lead: Span | None, items: list[Span]) -> Iterator[Span]:
    """Yield spans of whole neighbouring items, the lead with the first of them."""
    start, end = lead or items[0]
    filled = False
    for first, last in items:
        if filled and last - start > MAX_SPAN_CHARS:
            yield start, end
            start = first
        end, filled = last, True
    yield start, end
