"""Follow-ups: which questions lean on the conversation, and how rules alone make them stand by themselves.

The words are English. A follow-up in another language is not noticed, and is then searched for as it was asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.text import UNSPACED

MAX_CHARS = 300
"""A longer question brings along what it is about."""
MAX_TOPIC_CHARS = 500
"""Of an earlier question, when it is carried over; of its subject a fifth."""
FEW_WORDS, SEVERAL_WORDS, ADJUNCT_WORDS = 2, 3, 6
"""With at most so many words that carry meaning a question may leave its subject out; the likelier its form makes that,
the more they are."""

_STOP = """
    a an the and or but so then also is are was were be been am do does did done can could will would shall should may
    might must has have had having of for about in on at to from with without by as than into over under during between
    against what which who whom whose when where why how that this these those it its they them their he him his she
    her i me my we us our you your there here not no yes if because any some all both each more most much many often
    long far soon else other others another one ones thing things same such very too just still only really please ok
    tell explain describe give show mean means get got let happen happens well again now ever
"""
COURTESY = frozenset(("ok", "okay", "thank", "thanks", "you", "great", "good", "hello", "hi", "yes", "no", "bye"))
STOP = frozenset(_STOP.split()) | COURTESY
WORD = re.compile(r"[^\W_]+")

OPENER = re.compile(
    r"(?:(?:and|but|or|so|then|also|plus|ok|okay|what about|how about|what if)\b[\s,]*)+", re.IGNORECASE
)
_ASKING = (
    r"what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|will|would|should|may|might|"
    r"must|has|have|had|am"
)
ASKING = re.compile(rf"(?:{_ASKING}|tell|explain|describe|list|give|show|compare|define|name)\b", re.IGNORECASE)
"""How a whole question begins; others are fragments, such as "In children?"."""
_VERBS = r"\b(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|must|may)\b"
AUXILIARY = re.compile(_VERBS, re.IGNORECASE)
EXISTENTIAL = re.compile(r"(?:is|are) there\b", re.IGNORECASE)
ADJUNCT = re.compile(
    r"(in|on|at|during|with|without|after|before|under|among|by|from|to|while|when|if)\b"
    rf"(?!.*{_VERBS})",
    re.IGNORECASE,
)
"""How a fragment begins that adds to the question before it and does not change its subject."""
COMPLEMENT = re.compile(r"\b(?:of|about|between|against)\s+\w", re.IGNORECASE)
"""Where a question says what it is about."""
TARGET = re.compile(r"\b(?:of|for|about|between|against|with)\s+\w", re.IGNORECASE)
THE = re.compile(r"\bthe\b", re.IGNORECASE)
WHAT_THE = re.compile(r"(?:what|which|who) (?:is|are|was|were) the\b", re.IGNORECASE)
IDENTIFIER = re.compile(r"\w[^\w\s'’-]\w|\d")
"""Of a word that names something by itself, such as a version or an error's code."""

ONE = re.compile(r"\b(?:(?P<whose>its|his)|it(?!['’]s\b)|(?P<it_is>it['’]s)|he|him|she|her)\b", re.IGNORECASE)
SEVERAL = re.compile(
    r"\b(?:they|them|theirs?|these|those|this|(?:the )?(?:former|latter)|the (?:other|first|second|last) ones?)\b"
    r"|\b(?:is|was|are|does|did|do|can|could|will|would|should|about|like|after|before|with|for|to|on|of|than|from|why"
    r"|how)\s+that\b(?!\s+(?:the|a|an|it|there)\b)"
    r"|^that\b|\bthat\s*[?.!]*$",
    re.IGNORECASE,
)
"""What points at several things, or at no word in particular."""
SAME = re.compile(r"\bthe same\b", re.IGNORECASE)
IMPERSONAL = re.compile(
    r"\b(?:is|was|does|can|will|would|could|should)\s+it\s+(?:\w+\s+){1,4}(?:to|that|if|when)\b", re.IGNORECASE
)
"""An "it" that stands for what follows: "Is it safe to ..."."""
CLAUSE = re.compile(
    rf"[,;.?!:]\s|\b(?:and|or|but)\s+(?=(?:{_ASKING}|its?|they|their)\b)|\b(?:if|when|because|while)\s+(?=they\b)",
    re.IGNORECASE,
)
"""Where a second clause begins, whose pronouns may mean what the first one names."""

OF = re.compile(r"\b(?:of|for|about)\s+([^?.!,;:]+)", re.IGNORECASE)
LINK = re.compile(r"^(?:of|for)\s+", re.IGNORECASE)
END_MARKS = " \t\n?.!,;:"


class Topic(NamedTuple):
    """What a conversation is about: its last whole question, and the words in it that name a document, if any do."""

    question: str
    name: str = ""


def words(text: str) -> list[str]:
    """Return the words that carry meaning, in lower case, without the plural's "s"."""
    found = (word.lower() for word in WORD.findall(text))
    return [word.rstrip("s") or word for word in found if word not in STOP and (len(word) > 1 or word.isdigit())]


def leans(question: str) -> bool:
    """Return whether a question can only be understood with the conversation before it, as far as its form tells."""
    whole = " ".join(question.split())
    if len(whole) > MAX_CHARS or UNSPACED.search(whole) or set(WORD.findall(whole.lower())) <= COURTESY:
        return False
    rest = _without_opener(whole)
    count = len(words(rest))
    if not count or _points_back(rest) or (IMPERSONAL.search(rest) and count <= SEVERAL_WORDS):
        return True
    if rest != whole:
        return not ASKING.match(rest) or not COMPLEMENT.search(rest)
    if not ASKING.match(rest):
        few = SEVERAL_WORDS if rest.endswith("?") and not AUXILIARY.search(rest) else FEW_WORDS
        return count <= (ADJUNCT_WORDS if ADJUNCT.match(rest) else few) and not IDENTIFIER.search(rest)
    return _lacks_subject(rest, count)


def _without_opener(question: str) -> str:
    return OPENER.sub("", question, count=1) if OPENER.match(question) else question


def _lacks_subject(question: str, count: int) -> bool:
    """Return whether a whole question speaks of "the ..." without saying whose, or only asks "How ...?"."""
    if EXISTENTIAL.match(question):
        return count <= SEVERAL_WORDS and not COMPLEMENT.search(question) and not OF.search(question)
    if not AUXILIARY.search(question):
        return count == 1 and not TARGET.search(question)
    few = SEVERAL_WORDS if WHAT_THE.match(question) else FEW_WORDS
    return count <= few and bool(THE.search(question)) and not TARGET.search(question)


def _points_back(question: str) -> bool:
    return any(_outward(pattern, question) for pattern in (ONE, SEVERAL, SAME))


def _outward(pattern: re.Pattern[str], question: str) -> re.Match[str] | None:
    """Return the first pronoun that means nothing in the question itself."""
    impersonal = [found.span() for found in IMPERSONAL.finditer(question)]
    for found in pattern.finditer(question):
        is_name = found.group() == "IT" and not question.isupper()
        if is_name or any(start <= found.start() < end for start, end in impersonal):
            continue
        clauses = [clause.start() for clause in CLAUSE.finditer(question, 0, found.end())]
        if not clauses or not words(question[: clauses[-1]]):
            return found
    return None


def named(text: str, titles: Sequence[str]) -> str:
    """Return the first words of ``text``, as they stand there, that are a title or at least half of one; "" if none."""
    for title in titles:
        sought = set(words(title))
        runs = _runs(text, sought)
        for run in runs:
            if 2 * len(set(words(run))) >= len(sought):
                return run
    return ""


def _runs(text: str, sought: set[str]) -> list[str]:
    """Return the stretches of ``text`` whose words are all sought, in order."""
    runs: list[tuple[int, int]] = []
    joined = False
    for found in WORD.finditer(text):
        is_sought = bool(set(words(found.group())) & sought)
        if is_sought and joined:
            runs[-1] = (runs[-1][0], found.end())
        elif is_sought:
            runs.append(found.span())
        joined = is_sought
    return [text[start:end] for start, end in runs]


def follow(topic: Topic, question: str, name: str) -> tuple[str, Topic]:
    """Return a leaning question made to stand alone, and the topic of the one after it.

    ``name``: the words in ``question`` that name a document. "And metformin?" puts metformin in the topic's place, "Is
    it safe?" gets its subject, all else ("In children?", "Do they pass?") is put behind the topic's question.
    """
    rest = _without_opener(" ".join(question.split()))
    same = SAME.search(rest)
    if name and same and topic.name:
        return _switched(topic, name, name)
    if pronoun := _outward(ONE, rest):
        query = _put(rest, pronoun, subject(topic))
        return query, Topic(query, topic.name)
    adds = ADJUNCT.match(rest) or EXISTENTIAL.match(rest) or _outward(SEVERAL, rest)
    if name and not same and not adds:
        if ASKING.match(rest) or COMPLEMENT.search(rest):
            return rest, Topic(rest, name)
        if topic.name:
            return _switched(topic, LINK.sub("", rest.strip(END_MARKS)), name)
    if adjunct := ADJUNCT.match(rest):
        return _added(topic, rest[:1].lower() + rest[1:], adjunct[1].lower(), name), topic
    return f"{topic.question} {question}", topic


def _switched(topic: Topic, instead: str, name: str) -> tuple[str, Topic]:
    query = topic.question.replace(topic.name, instead, 1)
    return query, Topic(query, name)


def _added(topic: Topic, adjunct: str, preposition: str, name: str) -> str:
    """Return the topic's question with an adjunct, which takes the place of one that begins with the same word."""
    question = topic.question.rstrip(END_MARKS)
    before, same, replaced = question.rpartition(f" {preposition} ")
    if same and (name or not topic.name or topic.name not in replaced):
        question = before
    return f"{question} {adjunct}"


def _put(question: str, pronoun: re.Match[str], instead: str) -> str:
    ending = "'s" if pronoun["whose"] else " is" if pronoun["it_is"] else ""
    return f"{question[: pronoun.start()]}{instead}{ending}{question[pronoun.end() :]}"


def subject(topic: Topic) -> str:
    """Return what a question is about: what follows its "of", "for" or "about", else its name, else its words."""
    question = topic.question
    after = OF.search(question)
    phrase = " ".join(after[1].split()) if after else ""
    if not words(phrase) or topic.name not in phrase:
        phrase = topic.name or " ".join(words(question))
    return cut(phrase or question.strip(END_MARKS), MAX_TOPIC_CHARS // 5)


def cut(text: str, limit: int) -> str:
    """Return ``text`` in at most ``limit`` characters, cut at a word."""
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0]
