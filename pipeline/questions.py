"""What a question asks for: its parts, the kind of each, and what sentences of that kind of answer look like.

The patterns are English; a question of no kind is answered by the sentences nearest to it.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

MAX_PARTS = 4
MAX_CHARS = 600

_WORD = re.compile(r"\w{3,}|\d+")
_STOP = frozenset(
    (
        "affect affected affects and any are can could did does for from has have how into its many may much not "
        "people than that the their them there these they this was were what when where which who whom why will with "
        "would you your about tell"
    ).split()
)


class Kind(msgspec.Struct, frozen=True):
    """A kind of answer: the patterns of questions and headings that ask for it, and of sentences that give it."""

    name: str
    asked: re.Pattern[str]
    given: re.Pattern[str]


def _kind(name: str, asked: str, given: str) -> Kind:
    return Kind(name, re.compile(asked, re.IGNORECASE), re.compile(given, re.IGNORECASE))


_NUMBER = r"\d|\b(?:half|dozens?|hundreds?|thousands?|[mb]illions?|one|two|three|four|five|six|seven|eight|nine|ten)\b"
_LESS = r"(?<!reduce the )(?<!reduces the )(?<!reduce your )(?<!lower the )(?<!lower your )"

RESEARCH = _kind(
    "research",
    r"research|\bstud(?:y|ies)\b|clinical trial",
    r"\bresearch|\bscientists|\bclinical trials?\b|\bstudying\b|"
    r"\bstud(?:y|ies) (?:is|are|was|were|has|have|shows?|suggests?)\b",
)
"""What hardly anybody asks for, and much of what is published has."""

KINDS = (
    RESEARCH,
    _kind(
        "symptom",
        r"\bsymptom|\bsigns?\b|^how do(?:es)?\b(?=.*\bfeel\b)",
        r"\bsymptom|\bsigns?\b|\bfeatures?\b|characteri[sz]ed|\bfeels?\b",
    ),
    _kind("side effect", r"side effect|adverse|unwanted|undesirable", r"side effect|adverse|reactions?\b"),
    _kind(
        "cause",
        r"^causes?\b|\bcauses?$|what (?:\w+ )?causes?\b|which \w+ causes?\b|\bcauses? (?:of|and|or)\b|caused by|"
        r"\btrigger|genetic change|due to",
        r"\bcaused by|\bcauses? of|the causes?\b|unknown cause|\bdue to\b|results? (?:of|from)|resulting from|"
        r"\btrigger|\bmutation|brings? on|linked to|associated with|occurs? when",
    ),
    _kind(
        "reason",
        r"^why\b|reasons?\b",
        r"\bbecause\b|\bso that\b|\bdue to\b|\bsince\b|in order to|therefore|that is why|\breason",
    ),
    _kind(
        "treatment",
        r"(?<!\bnot )\btreat|therap|\bcures?\b|remed|what to do\b|\bmanage",
        r"(?<!without )\btreat|therap|medicine|medication|surg|\bdrugs?\b|reliev|remed|\bcures?\b",
    ),
    _kind(
        "prevention",
        r"prevent|\bhow\b(?=.*\bavoid)|\bavoid (?:getting|having)|protect (?:myself|yourself|against)|"
        r"(?:lower|reduce) (?:the|my|your) (?:risk|chance)",
        r"prevent|\bavoid|protect|\bshould\b|make sure|\bkeep\w* \w+ from\b|"
        r"(?:lower|reduce)s? (?:the|your|their) (?:risk|chance)|vaccin",
    ),
    _kind(
        "risk",
        r"\bat risk\b|risk factor|susceptib|who (?:gets|is affected|should|can|may|develops)|more likely",
        rf"{_LESS}\brisk|most often|most cases|more (?:likely|common|often)|\bprone\b|years (?:of age|old)|\baged?\b|"
        r"\bpeople who\b|\bshould\b",
    ),
    _kind(
        "inheritance",
        r"inherit|hereditary|run in famil|passed (?:on|down)|\bgenetic\b(?! change)",
        r"inherit|heredit|autosomal|x-linked|\bdominant|recessive|sporadic|passed (?:on|down)|famil|"
        r"\bgene(?:s|tics?)?\b",
    ),
    _kind(
        "test",
        r"diagnos|\btests?\b|\bexams?\b|detect|\bcheck(?:ed)? for\b",
        r"diagnos|\btest|\bexam|\bscan|x-ray|biops|imaging|\bmeasur",
    ),
    _kind(
        "outlook",
        r"outlook|prognosis|surviv|life expectancy|chance of recovery|how long do\b(?=.*\blive\b)",
        r"outlook|prognosis|surviv|recover|life (?:expectancy|span)|\bdie\b|death|fatal|gets? worse|over time|"
        r"permanent",
    ),
    _kind(
        "consequence",
        r"complication|what happens|consequence|\beffects? of|untreated|not treated|"
        r"\b(?:can|could|does|do|may|will|might)\b(?=.+\bcause\b)",
        r"complication|leads? to|\bcauses?\b|results? in|\bdamage|fail",
    ),
    _kind(
        "difference",
        r"\bdifferen|compare|versus|\bvs\b",
        r"\bdiffer|\bunlike\b|whereas|\bwhile\b|\bmore\b.*\bthan\b|\bboth\b|compared",
    ),
    _kind("stage", r"\bstages?\b|\bphases?\b", r"\bstages?\b|\bphases?\b"),
    _kind(
        "frequency",
        r"how (?:many|common|frequent|rare|often)|prevalence|incidence|statistics",
        r"\d ?(?:%|percent)|\b(?:1|one) (?:in|out of) |\bper \d|\d,\d{3}|\b(?:hundreds?|thousands?|[mb]illions?)\b|"
        r"\d (?:\w+ ){0,3}(?:people|persons|cases|patients|individuals|families)\b|"
        r"\brare\b|\bcommon\b|prevalence|incidence|\bestimated|unknown",
    ),
    _kind("quantity", r"how (?:much|tall|big|large|far|high|heavy|fast)\b|\bdos(?:e|age)\b", _NUMBER),
    _kind(
        "time",
        r"^when\b|how (?:long|soon|old)|(?:what|which) (?:age|year|day|time)",
        rf"(?:{_NUMBER}).*\b(?:second|minute|hour|day|week|month|year|age|century)|\b(?:weeks|months|years)\b",
    ),
    _kind(
        "use",
        r"\bwhat\b(?=.*\bused? for\b)|\buses\b",
        r"\bused (?:to|for|in)\b|\btreats?\b|\bgiven (?:to|for)\b|prescribed|approved (?:to|for)|\blowers?\b|"
        r"\brelieves?\b",
    ),
)

NEGATION = re.compile(
    r"\b(?:should|must) (?:not|never)\b|\b(?:should|must)n['’]t\b|^\W*(?:do not|don['’]t|never)\b", re.IGNORECASE
)
_DEFINITION = re.compile(
    r"\W*(?:what(?:['’]s| is| are| was| were| does)|who (?:is|was)|define|explain|do you have information|"
    r"tell me about)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(r"\W*(?:what|how|who|whom|why|which|when|where)\b", re.IGNORECASE)
_SPLIT = re.compile(
    r"\?\s+(?=\w)|(?:,\s*|\s+)(?:and|or)\s+"
    r"(?=(?:what|how|who|whom|why|which|when|where|is|are|can|could|does|do|did|should|will|may)\b)",
    re.IGNORECASE,
)
_POINTING = re.compile(r"\b(?:it|its|they|them|their|this|these|that|those|he|she|his|her)\b", re.IGNORECASE)
_SEVERAL = re.compile(r",|\b(?:and|or)\b", re.IGNORECASE)


class Part(msgspec.Struct, frozen=True):
    """One thing asked for."""

    kinds: tuple[Kind, ...]
    words: frozenset[str]
    """Stems of what is asked, that of the first part's subject included where this one only points at it."""
    subject: frozenset[str]
    """Those of ``words`` that do not name the kind."""
    defines: bool
    """The question is after the thing itself, and nothing else."""
    is_open: bool
    """It is not answered by yes or no."""
    negates: bool
    """It asks for what should not be."""


def parts(question: str) -> list[Part]:
    """Return what a question asks for, in order: "What is X and how is it treated?" has two parts.

    There are at most ``MAX_PARTS``; of a question above ``MAX_CHARS`` the beginning counts.
    """
    found: list[Part] = []
    for clause in filter(None, _SPLIT.split(" ".join(question.split())[:MAX_CHARS])):
        kinds = kinds_of(clause)
        several = len(kinds) > 1 and _SEVERAL.search(clause)
        for asked in [(kind,) for kind in kinds] if several else [kinds]:
            found.append(_part(clause, asked, found[0].subject if found else frozenset()))
    return found[:MAX_PARTS]


def asked_last(question: str, last: str) -> list[Part]:
    """Return the parts of a question that was put together from earlier ones and ``last``: those of ``last`` alone.

    What they are about they may have from the earlier ones. A question that does not end with ``last`` counts whole.
    """
    whole = parts(question)
    earlier = parts(question.removesuffix(last)) if question.endswith(last) else []
    if not earlier or len(earlier) >= len(whole):
        return whole
    subject = earlier[0].subject
    return [
        msgspec.structs.replace(part, words=part.words | subject, subject=part.subject | subject)
        for part in whole[len(earlier) :]
    ]


def _part(clause: str, kinds: tuple[Kind, ...], before: frozenset[str]) -> Part:
    words = stems(clause)
    subject = words - stems(" ".join(found for kind in kinds for found in kind.asked.findall(clause)))
    if before and (_POINTING.search(clause) or not subject):
        words, subject = words | before, subject | before
    return Part(
        kinds=kinds,
        words=words,
        subject=subject,
        defines=not kinds and bool(_DEFINITION.match(clause)),
        is_open=bool(_OPEN.match(clause)),
        negates=bool(NEGATION.search(clause)),
    )


@lru_cache(maxsize=4096)
def kinds_of(text: str) -> tuple[Kind, ...]:
    """Return the kinds that a question or heading asks for, in the order in which it names them."""
    found = [(match.start(), n) for n, kind in enumerate(KINDS) if (match := kind.asked.search(text))]
    return tuple(KINDS[n] for _, n in sorted(found))


def stems(content: str) -> frozenset[str]:
    """Return the first five letters of each word that carries meaning, a final s cut off: plurals and tenses match."""
    return frozenset(word.removesuffix("s")[:5] for word in _WORD.findall(content.lower()) if word not in _STOP)
