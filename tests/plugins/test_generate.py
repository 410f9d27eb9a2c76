"""The stage that has the LLM answer."""

import pytest

from pipeline.bus import MemoryBus
from pipeline.events import GenerationComplete, Sources, Tokens
from pipeline.fakes import FakeLLM, passage
from pipeline.host import Host, Options
from pipeline.ports import Finish, Run
from pipeline.prompts import REFUSAL
from pipeline.threads import Threads
from pipeline.wire import MAX_FRAME_BYTES
from plugins.generate import Generate


@pytest.fixture
def host_with(tmp_path):
    threads = Threads(1)
    yield lambda llm, **options: Host(Options(data_dir=tmp_path, **options), threads, {"llm": lambda _: llm})
    threads.close()


async def ran(stage, passages):
    run = Run(id="r", session_id="s", message_id="m", question="Why?", passages=passages)
    return run, [event async for event in stage.run(run)]


def text(events):
    return "".join(part for event in events if isinstance(event, Tokens) for part in event.content)


async def test_at_most_so_many_passages_are_given_as_the_settings_say(host_with):
    llm = FakeLLM(["x"])
    run, events = await ran(Generate(host_with(llm, sources=2)), [passage(n) for n in range(1, 6)])
    assert [source.n for source in run.sources] == [1, 2]
    assert len(llm.prompts[0].passages) == 2
    assert isinstance(events[0], Sources)


async def test_an_llm_is_given_the_question_as_it_stands_alone_beside_the_users_own_words(host_with):
    llm = FakeLLM(["x"])
    run = Run(id="r", session_id="s", message_id="m", question="And X?", query="What is X?", passages=[passage(1)])
    async for _ in Generate(host_with(llm)).run(run):
        pass
    assert llm.prompts[0].question == "What is X?"
    assert llm.prompts[0].messages[-1]["content"] == "And X?"


async def test_without_any_passage_the_question_is_refused_and_the_model_not_asked(host_with):
    llm = FakeLLM(["x"])
    run, events = await ran(Generate(host_with(llm)), [])
    assert text(events) == REFUSAL
    assert llm.prompts == []
    assert run.sources == []


@pytest.mark.parametrize(("floor", "asked"), [(None, 1), (0.3, 0)])
async def test_a_model_that_cannot_judge_is_not_given_what_is_far_from_the_question(host_with, floor, asked):
    class Judgeless(FakeLLM):
        min_relevance = floor

    llm = FakeLLM(["x"]) if floor is None else Judgeless(["x"])
    await ran(Generate(host_with(llm)), [passage(1, dense=0.1)])
    assert len(llm.prompts) == asked


async def test_the_models_reason_for_its_end_is_passed_on(host_with):
    _, events = await ran(Generate(host_with(FakeLLM(["x", Finish("length")]))), [passage(1)])
    assert isinstance(events[-1], GenerationComplete)
    assert events[-1].content.finish_reason == "length"


async def test_a_piece_of_any_size_fits_the_frames(host_with):
    _, events = await ran(Generate(host_with(FakeLLM(["\x01" * 100_000]))), [passage(1)])
    assert text(events) == "\x01" * 100_000
    bus = MemoryBus()
    bus.open("r")
    for event in events:
        bus.publish("r", event)
    assert max(map(len, await bus.frames("r"))) <= MAX_FRAME_BYTES


@pytest.mark.parametrize("together", [1, 2, 3, 7])
async def test_an_answer_is_filtered_alike_however_many_of_its_pieces_come_together(host_with, together):
    pieces = ["See ", "[", "1", "]", " and", " ", "[9", "]", "", " `a[9]`", " a\0b", "\ud83d", "\ude00", " é [2", "."]
    batches = [pieces[at : at + together] for at in range(0, len(pieces), together)]
    _, events = await ran(Generate(host_with(FakeLLM(batches))), [passage(1)])
    assert text(events) == "See [1] and `a[9]` ab\U0001f600 é [2."


async def test_pieces_that_come_together_stay_tokens_of_their_own(host_with):
    _, events = await ran(Generate(host_with(FakeLLM([["One", " two", "", " three"]]))), [passage(1)])
    assert [event.content for event in events if isinstance(event, Tokens)] == [["One", " two", " three"]]


async def test_an_open_bracket_at_the_end_is_not_lost(host_with):
    _, events = await ran(Generate(host_with(FakeLLM(["see [1"]))), [passage(1)])
    assert text(events) == "see [1"


async def test_the_models_stream_is_closed_when_the_stage_is(host_with):
    llm = FakeLLM(["a", "b", "c"])
    events = Generate(host_with(llm)).run(
        Run(id="r", session_id="s", message_id="m", question="?", passages=[passage(1)])
    )
    async for event in events:
        if isinstance(event, Tokens):
            break
    await events.aclose()
    assert llm.closed
