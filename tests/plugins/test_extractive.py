"""The answer in the passages' own words."""

import msgspec
import pytest

from pipeline import prompts
from pipeline.fakes import FakeEmbedder, FakeRetriever, passage
from pipeline.host import Host, Options
from pipeline.ports import Finish
from pipeline.selection import MAX_CHARS
from pipeline.threads import Threads
from plugins.extractive import Extractive

LION = "Lions live in groups that are called prides. Lions sleep for twenty hours of the day."
ZEBRA = "Zebras have stripes that confuse biting flies. Zebras sleep standing up among others."


@pytest.fixture
def extractive(tmp_path):
    threads = Threads(1)
    parts = {"embedder": lambda _: FakeEmbedder(), "retriever": lambda _: FakeRetriever()}
    yield Extractive(Host(Options(data_dir=tmp_path), threads, parts))
    threads.close()


async def answer(llm, question, *texts):
    asked = prompts.build(question, [passage(n, text) for n, text in enumerate(texts, 1)], [], 0)
    pieces = [piece async for piece in llm.stream(asked)]
    assert isinstance(pieces[-1], Finish)
    return pieces[:-1], pieces[-1].reason


async def test_sentences_are_quoted_whole_and_cited_by_their_passage(extractive):
    pieces, reason = await answer(extractive, "Zebras have stripes that confuse biting flies", LION, ZEBRA)
    assert "Zebras have stripes that confuse biting flies [2]." in "".join(pieces)
    assert reason == "stop"


async def test_the_citation_stands_before_the_full_stop_or_behind_a_closing_bracket(extractive):
    question = "Lions live in groups that are called prides"
    pieces, _ = await answer(extractive, question, "(Lions live in groups that are called prides.)")
    assert "".join(pieces) == "(Lions live in groups that are called prides.) [1]"


async def test_each_part_of_a_question_is_a_paragraph(extractive):
    text = "Mange is treated with lime. Mange is an illness of the skin."
    pieces, _ = await answer(extractive, "What is mange and how is mange treated?", text)
    assert "".join(pieces) == "Mange is an illness of the skin [1].\n\nMange is treated with lime [1]."


async def test_of_a_follow_up_only_what_was_asked_last_is_answered(extractive):
    passages = [passage(1, "Mange is treated with lime. Mange is an illness of the skin.")]
    query = "What is mange? How is mange treated?"
    asked = prompts.build("How is mange treated?", passages, [], 0, query=query)
    pieces = [piece async for piece in extractive.stream(asked)]
    assert "".join(pieces[:-1]) == "Mange is treated with lime [1]."


async def test_the_answer_comes_word_by_word(extractive):
    pieces, _ = await answer(extractive, "Zebras have stripes that confuse biting flies", ZEBRA)
    assert pieces[:3] == ["Zebras", " have", " stripes"]
    assert all(len(piece.split()) == 1 for piece in pieces)


async def test_a_question_far_from_every_sentence_is_refused(extractive):
    pieces, reason = await answer(extractive, "xylophone quartz", LION)
    assert "".join(pieces) == prompts.REFUSAL
    assert reason == "no_sources"


async def test_what_was_said_once_is_not_said_again(extractive):
    pieces, _ = await answer(extractive, "Lions live in groups that are called prides", LION, LION)
    assert "".join(pieces).count("prides") == 1


async def test_an_answer_is_of_bounded_length(extractive):
    long = " ".join(f"Lions of the kind {n} live in prides, groups and families number {n * 7}." for n in range(200))
    pieces, _ = await answer(extractive, "Lions live in prides groups families", long)
    assert 0 < len("".join(pieces)) < MAX_CHARS * 1.2


async def test_passages_without_a_sentence_are_no_answer(extractive):
    _, reason = await answer(extractive, "Lions?", "# Lions", "")
    assert reason == "no_sources"


async def test_vectors_that_the_retriever_keeps_are_used_only_when_they_fit_the_text(extractive):
    class Keeper(FakeRetriever):
        calls = 0

        async def sentence_vectors(self, passages):
            self.calls += 1
            return [(await FakeEmbedder().embed([p.text]))[:0] for p in passages]

    keeper = extractive._retriever = Keeper()
    pieces, _ = await answer(extractive, "Lions live in groups that are called prides", LION)
    assert keeper.calls == 1
    assert "prides" in "".join(pieces)


def test_it_is_labelled_as_what_it_is(extractive):
    assert extractive.model == "extractive"
    assert msgspec.json.encode(extractive.model) == b'"extractive"'
