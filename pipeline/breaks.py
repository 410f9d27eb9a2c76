"""Where the sentences of a paragraph begin."""

from __future__ import annotations

import re

CLOSERS = "\"'”’»)\\]*_`"
OPENERS = "\"'“‘«(\\[*_`"
REFERENCE = r"(?:\s{0,3}[(\[][\d\s.,;–-]{1,24}[)\]])*+"
"""Such as "( 6.1 )" or "[12]" behind a full stop: part of the sentence before it."""

END = re.compile(
    rf"(?<![.!?…])[.!?…]++[{CLOSERS}]*+(?:(?<=[a-z]\.)\d{{1,2}})?{REFERENCE}(?=\s)"
    r"|[。！？।؟]++[”’」』）)]*+"
    r"|(?<=[a-z)])\.(?=[A-Z][a-z]+\s)"
)
"""A possible end; the last form is a full stop that lacks its space."""

CLOSED = re.compile(rf"[.!?…。！？।؟][{CLOSERS}）」』*_]*+(?:(?<=[a-z]\.)\d{{1,2}})?{REFERENCE}\s*+\Z")
NEXT = re.compile(rf"\s*+[{OPENERS}]*+(\w*)")
LETTER = re.compile(r"[^\W\d_]")
ENUMERATOR = re.compile(rf"[{OPENERS}]{{0,4}}(?:\d{{1,3}}(?:\.\d{{1,3}})*|[A-Za-z]|[ivxIVX]{{1,5}})[.)]+")
ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]|(?:Ph|M|D|B)\.[A-Z][a-z]?")

ABBREVIATIONS = """
    dr mr mrs ms prof st mt rev hon gen col sgt capt lt gov sen rep vs eg e.g i.e cf fig figs eq eqs sec ch chap pp
    vol ed eds viz approx ca resp incl excl jan feb apr jun jul aug sep sept oct nov dec
"""
NEVER_LAST = frozenset(ABBREVIATIONS.split())
"""Abbreviations that something follows."""

MAYBE_LAST = frozenset(("etc", "inc", "ltd", "co", "corp", "jr", "sr", "al", "esp", "est", "dept", "min", "max", "avg"))
"""Abbreviations that may end a sentence as well."""

FUNCTION_WORDS = """
    The This That These Those It Its They Their He She We You Your I In On At For From If When While Although However
    But And Or As A An Some Many Most Other Such There Here After Before During Because Since With Without To By Both
    Each Not No What Why How Who Where Do Does Is Are Can Also All Any
"""
STARTERS = frozenset(FUNCTION_WORDS.split())
"""Words that begin a sentence far more often than a name."""

GRADED = frozenset(
    ("vitamin", "hepatitis", "influenza", "type", "group", "class", "grade", "stage", "step", "part", "factor")
)
"""Words whose single letter is no initial: "Hepatitis B. Patients ..."."""


def breaks(text: str, start: int, end: int) -> list[int]:
    """Return where the sentences of the paragraph ``text[start:end]`` begin, in order, ``start`` first.

    A sentence reaches to the next one's begin, white space included; linear in ``end - start``.
    """
    found = [start]
    for mark in END.finditer(text, start, end):
        follows = NEXT.match(text, mark.end(), end)
        if follows and follows.end() > mark.end() and _ends(text, found[-1], mark, follows):
            begin = follows.start() + len(follows.group()) - len(follows.group().lstrip())
            if begin < end:
                found.append(begin)
    return found


def is_closed(sentence: str) -> bool:
    """Return whether a sentence has the mark at its end, apart from quotes, brackets and notes."""
    return bool(CLOSED.search(sentence, max(0, len(sentence) - 60)))


def _ends(text: str, begin: int, mark: re.Match[str], follows: re.Match[str]) -> bool:
    word = follows.group(1)
    if word.islower() or not LETTER.search(text, begin, min(mark.start(), begin + 80)):
        return False
    if mark.group()[0] != "." or mark.group()[:2] == "..":
        return True
    if ENUMERATOR.fullmatch(text, begin, mark.end()):
        return False
    if not follows.group()[0].isspace():
        return word in STARTERS
    return _ends_word(text[max(begin, mark.start() - 40) : mark.start()].split(), word)


def _ends_word(before: list[str], word: str) -> bool:
    """Return whether the full stop behind ``before`` ends a sentence and not only an abbreviation."""
    last = before[-1].lstrip("\"'“‘«([*_`") if before else ""
    if last.lower() in NEVER_LAST:
        return False
    if last.lower() in ("no", "nos", "p", "v"):
        return not word[:1].isdigit()
    if last.lower() in MAYBE_LAST or ACRONYM.fullmatch(last):
        return word in STARTERS
    if len(last) == 1 and last.isupper() and _is_initial(before[:-1]):
        return word in STARTERS
    return True


def _is_initial(before: list[str]) -> bool:
    return not before or (before[-1][0].isupper() and before[-1].lower() not in GRADED)
