"""Keeps an answer from citing passages that it was not given."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"( ?)\[(\d[\d,\s]*)\]")
_OPEN = re.compile(r" ?\[(?:\d[\d,\s]*)?$| $|`+$")
_MARKS = re.compile(r"(`+)")
FENCE = 3
"""Backticks from which code goes on over the end of its line."""
LONGEST = 40
"""Characters after which an open bracket is no citation any more."""


class CitationFilter:
    """Drops ``[n]`` where ``n`` is not a passage's number, from text that comes in pieces.

    ``[1, 9]`` becomes ``[1]`` when there is no ninth passage. Only what may yet turn into a citation is held back. What
    stands between backticks is code, in which ``a[9]`` cites nothing.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self._code = ""
        """The backticks that have opened the code that we are in."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held back, and no code is open."""
        return not self._held and not self._code

    def feed(self, piece: str) -> str:
        """Return what can be sent now."""
        if self.is_idle and not piece.endswith(" ") and "[" not in piece and "`" not in piece:
            return piece
        text = self._held + piece
        opened = _OPEN.search(text)
        cut = opened.start() if opened and len(text) - opened.start() <= LONGEST else len(text)
        self._held = text[cut:]
        return "".join(map(self._cleaned, _MARKS.split(text[:cut])))

    def flush(self) -> str:
        """Return what was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _cleaned(self, part: str) -> str:
        if part.startswith("`"):
            closes = part == self._code or (len(self._code) >= FENCE and part.startswith(self._code))
            self._code = "" if closes else self._code or part
            return part
        code, line_end, text = part.partition("\n") if self._code else ("", "", part)
        if line_end and len(self._code) < FENCE:
            self._code = ""
        return part if self._code else code + line_end + _WHOLE.sub(self._checked, text)

    def _checked(self, citation: re.Match[str]) -> str:
        named = [int(n) for n in re.findall(r"\d{1,9}", citation[2])]
        kept = [n for n in named if 1 <= n <= self._passages]
        if kept == named:
            return citation[0]
        return f"{citation[1]}[{', '.join(map(str, kept))}]" if kept else ""
