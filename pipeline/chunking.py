"""Documents cut into chunks along their own structure, each of a size that an embedder takes whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile

import msgspec

from pipeline.outline import Outline, Section, Unit, cut

Counter = Callable[[Sequence[str]], list[int]]
Path = tuple[str, ...]
Span = tuple[int, int, Path, int]
"""Of a chunk: its first unit, the one behind its last, the headings above, its tokens as its parts add up."""

TARGET = 0.75
"""Of ``max_tokens``: the size that chunks are drawn to; whole blocks may fill the rest."""
SMALL = 0.16
"""Of ``max_tokens``: a section up to that may share a chunk with its neighbours."""
MAX_UNITS = 64
MAX_SECTIONS = 12
"""In a chunk, so that a million tiny paragraphs or headings take no more time than others."""
MAX_CHARS_PER_TOKEN = 16
"""Tokenizers count a word of a thousand characters as one unknown token, but a chunk of such is too long."""
SURE = 0.8
"""Of the limit: a chunk whose parts add up to less is not counted again as a whole."""
MAX_TITLE_CHARS = 200
MAX_HEADING_CHARS = 120


class Chunk(msgspec.Struct, frozen=True):
    """A part of a document that is embedded, found and shown as one."""

    position: int
    """From 0, in the order of the document."""
    heading: str
    """The headings above it, outermost first, joined by " > "; the document's title is not repeated."""
    text: str
    """As it stands in the document, trimmed; sections that share a chunk keep their heading lines."""


def embedded_text(title: str, heading: str, text: str) -> str:
    """Return what is embedded for a chunk: "Title > Heading", a blank line, the text.

    A title above 200 characters is cut; of the headings the innermost 120 characters are kept.
    """
    above = " > ".join(filter(None, (title.strip()[:MAX_TITLE_CHARS], heading.strip()[-MAX_HEADING_CHARS:])))
    return f"{above}\n\n{text}" if above else text


def chunk(text: str, *, title: str, count_tokens: Counter, max_tokens: int) -> list[Chunk]:
    """Cut a document along sections, blocks, sentences, words, and inside a word only at last.

    All that is not white space, heading lines aside, is in exactly one chunk, in order; nothing overlaps. Of
    a document that is only its title the title is the text, an empty one gives no chunks.

    Args:
        text: Normalised Markdown.
        title: The document's; a first heading that only repeats it is not among the headings of chunks.
        count_tokens: As :meth:`pipeline.ports.Embedder.count_tokens`; called a few times, with many texts.
        max_tokens: No :func:`embedded_text` of a chunk takes more, unless the title takes seven eighths.
    """
    outline = Outline(text, title)
    if not outline.units:
        return [Chunk(0, "", title.strip())] if text.strip() else []
    sections = outline.sections
    ruler = _Ruler(title, sections, count_tokens, max_tokens)
    units = ruler.counted(text, outline.units)
    limit = ruler.limit
    while True:
        units = ruler.fitted(text, units, sections, limit)
        spans = list(_Partition(units, sections, ruler, limit).spans())
        chunks = _drawn(text, units, sections, spans)
        excess = ruler.largest(chunks, spans) - ruler.limit
        if excess <= 0 or limit - excess < ruler.limit // 2:
            return chunks
        limit -= excess


class _Ruler:
    """Knows what everything takes of the tokens: parts are added up, finished chunks are counted whole."""

    def __init__(self, title: str, sections: list[Section], count_tokens: Counter, max_tokens: int) -> None:
        self._title = title
        self._count = count_tokens
        self.max_tokens = max_tokens
        paths = list({section.path[:depth] for section in sections for depth in range(len(section.path) + 1)})
        above = [embedded_text(title, " > ".join(path), "") for path in paths]
        self._nothing, *sizes = count_tokens(["", *above, *(section.heading for section in sections)])
        self.above = dict(zip(paths, sizes, strict=False))
        """What title and headings take, together with an empty text."""
        self.headings = [size - self._nothing for size in sizes[len(paths) :]]
        """What the heading line of each section takes within a text."""
        self.limit = max(max_tokens, self.above[()] + max_tokens // 8)
        for section in sections:
            if self.above[section.path] > max_tokens // 2:
                section.path = ()

    def counted(self, text: str, units: Sequence[Unit]) -> list[Unit]:
        """Return the units with their tokens, those of the line break behind them included."""
        counts = self._count([text[unit.start : unit.end] + "\n\n" for unit in units])
        least = ((unit.end - unit.start) // MAX_CHARS_PER_TOKEN + 1 for unit in units)
        tokens = [max(count - self._nothing, lowest) for count, lowest in zip(counts, least, strict=True)]
        return [unit._replace(tokens=taken) for unit, taken in zip(units, tokens, strict=True)]

    def fitted(self, text: str, units: list[Unit], sections: list[Section], limit: int) -> list[Unit]:
        """Return the units, those that fit into no chunk replaced by parts that do."""
        rooms = [limit - self.above[section.path] for section in sections]
        while True:
            parts = {i: cut(text, unit) for i, unit in enumerate(units) if not _fits(unit, rooms)}
            if not parts:
                return units
            counted = iter(self.counted(text, list(chain.from_iterable(parts.values()))))
            pieces = ([unit] if i not in parts else islice(counted, len(parts[i])) for i, unit in enumerate(units))
            units = list(chain.from_iterable(pieces))

    def largest(self, chunks: Sequence[Chunk], spans: Sequence[Span]) -> int:
        """Return the size of the largest chunk as it is embedded, 0 when all are surely small enough."""
        doubtful = (part for part, (*_, size) in zip(chunks, spans, strict=True) if size > SURE * self.limit)
        texts = [embedded_text(self._title, part.heading, part.text) for part in doubtful]
        return max(self._count(texts)) if texts else 0


def _fits(unit: Unit, rooms: list[int]) -> bool:
    """Return whether a unit is to stay whole.

    Prose that nearly fills a chunk is offered in parts: its last sentences may have to keep company to a line that
    would else be alone with title and headings. Where there is none, the price of cuts keeps the parts together.
    """
    share = TARGET if unit.kind in ("text", "list") else 1
    return unit.tokens <= share * rooms[unit.section] or unit.end - unit.start == 1


class _Partition:
    """Finds the cheapest way to put neighbouring units into chunks that fit.

    A chunk costs the square of its distance from the target, and what its first unit asks for a beginning.
    """

    def __init__(self, units: list[Unit], sections: list[Section], ruler: _Ruler, limit: int) -> None:
        self._units = units
        self._sections = sections
        self._ruler = ruler
        self._limit = limit
        filled = [0] * len(sections)
        for unit in units:
            filled[unit.section] += unit.tokens
        self._is_small = [tokens <= SMALL * ruler.max_tokens for tokens in filled]

    def spans(self) -> Iterator[Span]:
        """Yield the chunks in order."""
        count = len(self._units)
        costs, ends = [0.0] * (count + 1), [0] * count
        paths: list[Path] = [()] * count
        sizes = [0] * count
        target = TARGET * self._ruler.max_tokens
        for i in reversed(range(count)):
            reach = (((1 - size / target) ** 2 + costs[end], end, path, size) for end, path, size in self._reach(i))
            cost, ends[i], paths[i], sizes[i] = min(reach)
            costs[i] = cost + self._units[i].cost
        i = 0
        while i < count:
            yield i, ends[i], paths[i], sizes[i]
            i = ends[i]

    def _reach(self, first: int) -> Iterator[tuple[int, Path, int]]:
        """Yield the chunks that may begin with a unit: the unit behind each, its headings, its tokens."""
        own = self._units[first].section
        path = top = self._sections[own].path
        depth, tokens = len(path), 0
        for i in range(first, min(first + MAX_UNITS, len(self._units))):
            unit = self._units[i]
            if i > first and unit.section != self._units[i - 1].section:
                other = self._sections[unit.section].path
                path, depth = _shared(path, other), max(depth, len(other))
                if not self._may_join(first, i, path, depth):
                    return
                tokens += self._ruler.headings[unit.section]
            tokens += unit.tokens
            size = tokens + self._ruler.above[path] + (self._ruler.headings[own] if path != top else 0)
            if size > self._limit and i > first:
                return
            yield i + 1, path, size

    def _may_join(self, first: int, i: int, path: Path, depth: int) -> bool:
        """Return whether a chunk from unit ``first`` on may go on into the section that unit ``i`` begins.

        One of the two must be small, both below one heading or one below the other, and a heading that the
        chunk cannot name must be in its text.
        """
        section, before = self._units[i].section, self._units[i - 1].section
        own = self._units[first].section
        begins = first == 0 or self._units[first - 1].section != own
        named = path == self._sections[own].path or (begins and self._sections[own].heading != "")
        near = len(path) >= depth - 1 and section - own < MAX_SECTIONS
        return named and near and (self._is_small[section] or self._is_small[before])


def _shared(one: Path, other: Path) -> Path:
    return one[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))]


def _drawn(text: str, units: list[Unit], sections: list[Section], spans: Iterable[Span]) -> list[Chunk]:
    chunks = []
    for position, (first, behind, path, _) in enumerate(spans):
        section = sections[units[first].section]
        start = units[first].start if section.path == path else section.start
        chunks.append(Chunk(position, " > ".join(path), text[start : units[behind - 1].end].strip()))
    return chunks
