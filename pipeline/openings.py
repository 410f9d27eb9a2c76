"""What keeps a sentence from opening an answer, or from standing in it: it points back, goes on, or says nothing.

The patterns are English; sentences in other languages have none of these faults.
"""

from __future__ import annotations

import re

MAX_BROKEN_CHARS = 300
"""A longer sentence without its end is rather the first part of an endless one, which says much by itself."""

_ANTECEDENT = re.compile(
    r"""\W*(?:
    it(?!(?:['’]s|\s(?:is|was|has\sbeen|can\sbe|may\sbe))\s\w+\s(?:that|to)\b)
    | its | they | their | them | he | she | his | her | these | this | that | those(?!\s(?:who|with|that)\b)
    | such\b(?!\sas) | both(?!\s\w+\s+and\b) | some\sof\s(?:these|them|those)
    | (?:in|at|for|of|from|by|with|during|after|because\sof|to)\s(?:this|these|such|that|it|them)
    | however | but | and | or | still | then | therefore | thus | hence | instead | otherwise | consequently | also
    | as\sa\sresult | even\sso | nevertheless | if\sso | for\s(?:example|instance)
    | (?:one|two|three|an|some)\sexamples? | the\s(?:former|latter)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_LIKE_BEFORE = re.compile(
    r"\b(?:a similar|the same) (?:effect|way|reason|problem|risk|result)s?\b(?! (?:as|to)\b)", re.IGNORECASE
)
_GOES_ON = re.compile(
    r"""\W*(?:
    (?:the\s)?others? | another | additional(?:ly)? | in\saddition | furthermore | moreover | finally | similarly
    | likewise | next | second(?:ly)? | third(?:ly)? | (?:\S+\s){1,7}?also | although | while
    | the\smore\b.*\bthe | out\sof\sthe
    | the\s(?:condition|disease|disorder|illness|infection|syndrome|procedure|medicine|drug|device|product|program)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_OF_ITSELF = re.compile(
    r"""
    \b(?:this|our)\s(?:\w+\s)?(?:article|chapter|page|leaflet|booklet|section|summary|fact\s?sheet|brochure|document
        |web\s?site|table|figure|guide|publication)s?\b
    | ^\W*(?:see|click|visit|read\sabout|key\spoints?|(?:these|the\sfollowing)\sresources)\b
    | \bmore\sinformation\b | \blearn\smore\b | \bto\sread\smore\b | \bprovides?\s(?:the\sfollowing|information)\b
    | \b(?:discussed|described)\s(?:in\s\w+\sdetail\s)?(?:elsewhere|in\sother)\b | https?:// | \bwww\.
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SENDS_AWAY = re.compile(
    r"\W*(?:\w+,\s)?(?:please\s)?(?:ask|tell|call|contact|consult|check\swith|talk\s(?:to|with)|speak\s(?:to|with)|let|see)"
    r"\s(?:your|a|an|the)\s|.{0,80}\b(?:talk|speak)\s(?:to|with)\syour\b",
    re.IGNORECASE,
)
_UNSPECIFIC = re.compile(
    r"""
    \b(?:many|several|various|certain|different|a\snumber\sof|lots\sof|some|a\svariety\sof)\s(?:\w+\s){0,2}?
        (?:factor|thing|way|step|type|kind|form|cause|symptom|reason|option|trait|condition|habit|stage|treatment
        |problem|point|test|procedure|method|medicine)s\b
    | \btake\s(?:\w+\s)?steps\b | \bit\sis\s(?:\w+\s)?(?:important|possible|difficult|hard|not\sclear)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BROKEN = re.compile(
    r"(?:\b(?:such as|including|includes?|are|is|of|the|and|or|with|for|following|however)|[:,;(] ?\d{0,2})\Z",
    re.IGNORECASE,
)
_RUNS_ON = re.compile(r"[a-z]{2}(?<!\bvs)(?<!etc)(?<!approx)\. [a-z]{3}")
_RUN_IN = re.compile(
    r"""(?:Summary\s?:\s
    | (?:[A-Z][\w'’-]*\s(?:(?:of|and|the|to|in|at|by|with|for|a|or|on|is)\s)?){1,7}
      (?=(?:The|With|In|If|When|Some|Most|Many|People|These|This|You|Your|There|Although|Because|For|To|As|Once
      |Sometimes?|At|After|While)\s[a-z]))""",
    re.VERBOSE,
)


def run_in_heading(sentence: str) -> str:
    """Return the heading that a careless conversion left at the front: "Common Treatments The first choice is ..."."""
    found = _RUN_IN.match(sentence)
    return found.group() if found else ""


def needs_antecedent(sentence: str) -> bool:
    """Return whether a sentence points at, or answers to, the one before it: "It ...", "However, ..."."""
    return bool(_ANTECEDENT.match(sentence) or _LIKE_BEFORE.search(sentence))


def goes_on(sentence: str) -> bool:
    """Return whether a sentence is understood alone but reads as one that others go before: "Other signs are ..."."""
    return bool(_GOES_ON.match(sentence))


def is_empty(sentence: str) -> bool:
    """Return whether a sentence speaks of its own document, or only sends the reader to someone."""
    return bool(_OF_ITSELF.search(sentence) or _SENDS_AWAY.match(sentence))


def is_unspecific(sentence: str) -> bool:
    """Return whether a sentence promises what it does not say: "There are several ways ..."; a list would say it."""
    found = _UNSPECIFIC.search(sentence)
    return found is not None and ":" not in sentence[found.end() :]


def is_broken(sentence: str) -> bool:
    """Return whether a sentence lacks the list that it introduces, or runs on in small letters after a full stop."""
    bare = sentence.rstrip(" .")
    cut_off = len(sentence) < MAX_BROKEN_CHARS and _BROKEN.search(bare, max(0, len(bare) - 12))
    return bool(cut_off or _RUNS_ON.search(sentence))
