"""Bad plugins, each with one fault, are caught by the check that is named for it; good ones pass all."""

import asyncio
import math
import re
import socket
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipeline.conformance import common
from pipeline.conformance.checks import CHECKS, name_of, verdicts
from pipeline.conformance.uses import PASSAGES
from pipeline.events import Tokens, stage_events
from pipeline.fakes import FakeEmbedder, FakeReranker, passage
from pipeline.ports import Finish

README = Path(__file__).parents[2] / "README.md"
FOUND = [passage(n, dense=0.9 - n / 10) for n in range(1, 6)]
WorkStart, WorkComplete = stage_events("work")


class GoodRetriever:
    def found(self):
        return list(FOUND)

    async def search(self, question, limit, scope):
        await asyncio.sleep(0.001)
        return [] if scope.filters else self.found()[:limit]


class GoodLLM:
    model = "good"
    pieces: tuple[object, ...] = ("a", [" b", " c"], Finish("stop"))

    async def stream(self, _prompt):
        for piece in self.pieces:
            await asyncio.sleep(0.001)
            yield piece


class GoodStage:
    async def run(self, _run):
        yield WorkStart()
        yield WorkComplete()


class NoList(GoodRetriever):
    async def search(self, question, limit, scope):
        return tuple(await super().search(question, limit, scope))


class Wordy(GoodRetriever):
    def found(self):
        return [msgspec.structs.replace(each, title=7) for each in FOUND]


class Endless(GoodRetriever):
    async def search(self, question, limit, scope):
        return await super().search(question, 100, scope)


class Boastful(GoodRetriever):
    def found(self):
        return [msgspec.structs.replace(each, score=each.score * 10) for each in FOUND]


class Backwards(GoodRetriever):
    def found(self):
        return FOUND[::-1]


class Twice(GoodRetriever):
    def found(self):
        return [FOUND[0], *FOUND]


class NoNumber(GoodRetriever):
    def found(self):
        return [msgspec.structs.replace(each, scores={"dense": math.nan}) for each in FOUND]


class Unfiltered(GoodRetriever):
    async def search(self, question, limit, scope):
        return self.found()[:limit]


class Nothing(GoodRetriever):
    async def search(self, question, limit, scope):
        return await super().search(question, limit, scope) or None


class Western(GoodRetriever):
    async def search(self, question, limit, scope):
        question.encode("latin-1")
        return await super().search(question, limit, scope)


class Alone(GoodRetriever):
    busy = False

    async def search(self, question, limit, scope):
        if self.busy:
            raise RuntimeError("another search is under way")
        self.busy = True
        try:
            return await super().search(question, limit, scope)
        finally:
            self.busy = False


class Deaf(GoodRetriever):
    async def search(self, question, limit, scope):
        try:
            await asyncio.sleep(0.05)
        finally:
            await asyncio.sleep(0.15)
        return await super().search(question, limit, scope)


class Blocking(GoodRetriever):
    async def search(self, question, limit, scope):
        time.sleep(0.08)  # noqa: ASYNC251  # the fault
        return await super().search(question, limit, scope)


class Forgetful(GoodRetriever):
    def __init__(self):
        self.tasks = []

    async def search(self, question, limit, scope):
        self.tasks.append(asyncio.create_task(asyncio.sleep(30)))
        return await super().search(question, limit, scope)


class Leaky(GoodRetriever):
    def __init__(self):
        self.sockets = []

    async def search(self, question, limit, scope):
        self.sockets.append(socket.socket())
        return await super().search(question, limit, scope)


class Inventor(FakeReranker):
    async def rerank(self, question, passages, limit):
        return [passage(99), *passages][:limit] if passages else []


class Editor(FakeReranker):
    async def rerank(self, question, passages, limit):
        return [msgspec.structs.replace(each, text="better") for each in passages[:limit]]


class Hungry(FakeReranker):
    async def rerank(self, question, passages, limit):
        assert max(each.score for each in passages)
        return list(passages[:limit])


class Nameless(FakeReranker):
    method = ""


class Bytes(GoodLLM):
    pieces = ("a", b"b")


class Early(GoodLLM):
    pieces = (Finish("stop"), "a")


class Mute(GoodLLM):
    pieces = (Finish("stop"),)


class Half(GoodLLM):
    pieces = ("a", "\ud83d")


class Unnamed(GoodLLM):
    model = ""


class Long(FakeEmbedder):
    async def embed(self, texts):
        return 2 * await super().embed(texts)


class Double(FakeEmbedder):
    async def embed(self, texts):
        return (await super().embed(texts)).astype(np.float64)


class Sorted(FakeEmbedder):
    async def embed(self, texts):
        return await super().embed(sorted(texts))


class Picky(FakeEmbedder):
    async def embed(self, texts):
        return np.array([]) if not texts else await super().embed(texts)


class Careless(FakeEmbedder):
    def count_tokens(self, texts):
        return [1 for _ in texts]


class Unfinished(GoodStage):
    async def run(self, _run):
        yield WorkStart()


class Chatty(GoodStage):
    async def run(self, _run):
        yield "working"


class Giant(GoodStage):
    async def run(self, _run):
        yield WorkStart()
        yield Tokens(["x" * 100_000])
        yield WorkComplete()


BAD = [
    ("retriever", NoList, "returns-passages"),
    ("retriever", Wordy, "returns-passages"),
    ("retriever", Endless, "keeps-the-limit"),
    ("retriever", Boastful, "puts-the-best-first"),
    ("retriever", Backwards, "puts-the-best-first"),
    ("retriever", Twice, "names-each-passage-once"),
    ("retriever", NoNumber, "tells-the-scores-of-its-parts"),
    ("retriever", Unfiltered, "finds-nothing-without-an-error"),
    ("retriever", Nothing, "finds-nothing-without-an-error"),
    ("retriever", Western, "takes-any-text"),
    ("retriever", Alone, "serves-many-at-once"),
    ("retriever", Deaf, "stops-when-cancelled"),
    ("retriever", Blocking, "leaves-the-loop-free"),
    ("retriever", Forgetful, "leaves-nothing-behind"),
    ("retriever", Leaky, "leaves-nothing-behind"),
    ("reranker", Inventor, "returns-only-what-it-was-given"),
    ("reranker", Editor, "returns-only-what-it-was-given"),
    ("reranker", Hungry, "takes-an-empty-list"),
    ("reranker", Nameless, "says-what-orders"),
    ("llm", Bytes, "yields-text"),
    ("llm", Early, "yields-text"),
    ("llm", Mute, "yields-text"),
    ("llm", Half, "yields-what-can-be-sent"),
    ("llm", Unnamed, "names-its-model"),
    ("embedder", Long, "makes-unit-vectors"),
    ("embedder", Double, "makes-unit-vectors"),
    ("embedder", Sorted, "keeps-the-order"),
    ("embedder", Picky, "takes-an-empty-list"),
    ("embedder", Careless, "counts-tokens"),
    ("stage", Unfinished, "begins-and-ends"),
    ("stage", Chatty, "begins-and-ends"),
    ("stage", Giant, "yields-what-can-be-sent"),
]
GOOD = [
    ("retriever", GoodRetriever),
    ("reranker", FakeReranker),
    ("llm", GoodLLM),
    ("embedder", FakeEmbedder),
    ("stage", GoodStage),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(common, "SETTLE_S", 0.5)


def breaches(kind, plugin):
    return (one.check async for one in verdicts(kind, plugin) if one.breach)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("kind", "bad", "check"), BAD, ids=[bad.__name__ for _, bad, _ in BAD])
async def test_a_fault_is_caught_by_the_check_that_is_named_for_it(kind, bad, check):
    plugin = bad()
    assert await anext(breaches(kind, plugin)) == check
    for task in getattr(plugin, "tasks", []):
        task.cancel()
    for one in getattr(plugin, "sockets", []):
        one.close()


@pytest.mark.parametrize(("kind", "good"), GOOD)
async def test_a_plugin_without_a_fault_passes_every_check(kind, good):
    assert [check async for check in breaches(kind, good())] == []


def test_every_check_is_seen_to_catch_something():
    caught = {check for _, _, check in BAD}
    assert {name_of(check) for checks in CHECKS.values() for check in checks} == caught


def test_the_readme_tells_every_check():
    told = set(re.findall(r"^\| [^|]* \| `([a-z-]+)` \|$", README.read_text(), re.MULTILINE))
    assert told == {name_of(check) for checks in CHECKS.values() for check in checks}


def test_the_checks_passages_are_odd_enough():
    assert not all(each.text.isascii() for each in PASSAGES)
