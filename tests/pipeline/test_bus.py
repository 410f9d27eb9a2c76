"""The bus of one process."""

import asyncio
import json
from contextlib import aclosing

import pytest

from pipeline.bus import PROMPT_TOKENS, MemoryBus
from pipeline.errors import UnknownRun
from pipeline.events import Cancelled, Stopped, Token, Tokens
from pipeline.ports import BATCH

END = Cancelled(Stopped(stage="generation", tokens_kept=0))


async def read_all(bus, after=0):
    frames = []
    async with aclosing(bus.read("r", after)) as batches:
        async for batch in batches:
            frames += batch
    return frames


def texts(frames):
    return [json.loads(frame.split(b"data: ")[1])["content"] for frame in frames[:-1]]


def opened():
    bus = MemoryBus()
    bus.open("r")
    return bus


async def test_every_reader_gets_every_event_once_and_in_order():
    bus = opened()
    readers = [asyncio.create_task(read_all(bus)) for _ in range(3)]
    for n in range(200):
        bus.publish("r", Token(str(n)))
        if n % 7 == 0:
            await asyncio.sleep(0)
    bus.close("r", bus.last_frame("r", END))
    for reader in readers:
        assert texts(await reader) == [str(n) for n in range(200)]


async def test_ids_count_from_one_without_a_gap():
    bus = opened()
    for _ in range(5):
        bus.publish("r", Token("x"))
    bus.close("r", bus.last_frame("r", END))
    assert [frame.split(b"\n")[0] for frame in await read_all(bus)] == [b"id: %d" % n for n in range(1, 7)]


async def test_tokens_that_are_published_together_are_events_of_their_own():
    bus = opened()
    bus.publish("r", Token("0"))
    sent_bytes = bus.publish("r", Tokens(["1", "2", "3"]))
    bus.close("r", bus.last_frame("r", END))
    frames = await read_all(bus)
    assert texts(frames) == ["0", "1", "2", "3"]
    assert [frame.split(b"\n")[0] for frame in frames] == [b"id: %d" % n for n in range(1, 6)]
    assert sent_bytes == sum(map(len, frames[1:4]))


async def test_tokens_may_be_kept_back_for_a_while_and_told_together():
    bus = MemoryBus(flush_s=0.05)
    bus.open("r")
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[int] = asyncio.Queue()

    async def read():
        async with aclosing(bus.read("r")) as batches:
            async for batch in batches:
                told.put_nowait(len(batch))

    reader = asyncio.create_task(read())
    for n in range(PROMPT_TOKENS):
        bus.publish("r", Tokens([str(n)]))
        assert await told.get() == 1
    begun = loop.time()
    for n in range(3):
        bus.publish("r", Tokens([str(n)]))
        await asyncio.sleep(0.001)
    assert await told.get() == 3
    assert loop.time() - begun > 0.04
    bus.publish("r", Tokens(["kept back"]))
    ended = loop.time()
    bus.close("r", bus.last_frame("r", END))
    assert await told.get() == 2
    assert loop.time() - ended < 0.03
    await reader


async def test_a_reader_that_comes_back_misses_nothing():
    bus = opened()
    for n in range(10):
        bus.publish("r", Token(str(n)))
    bus.close("r", bus.last_frame("r", END))
    assert await read_all(bus, after=4) == (await read_all(bus))[4:]


async def test_a_reader_far_behind_gets_batches_of_bounded_length():
    bus = opened()
    for _ in range(1000):
        bus.publish("r", Token("x"))
    bus.close("r", bus.last_frame("r", END))
    async with aclosing(bus.read("r")) as batches:
        assert max([len(batch) async for batch in batches]) == BATCH


async def test_a_reader_that_leaves_while_waiting_disturbs_nobody():
    bus = opened()
    leaver, stayer = (asyncio.create_task(read_all(bus)) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    bus.publish("r", Token("x"))
    bus.close("r", bus.last_frame("r", END))
    assert texts(await stayer) == ["x"]


async def test_nothing_can_follow_the_terminal_event():
    bus = opened()
    bus.close("r", bus.last_frame("r", END))
    with pytest.raises(UnknownRun):
        bus.publish("r", Token("x"))


async def test_a_run_cannot_be_given_a_second_terminal_event():
    bus = opened()
    bus.close("r", bus.last_frame("r", END))
    with pytest.raises(UnknownRun):
        bus.close("r", bus.last_frame("r", END))
    assert len(await read_all(bus)) == 1


async def test_an_event_that_cannot_be_sent_leaves_the_log_as_it_was():
    bus = opened()
    with pytest.raises(ValueError, match="bytes"):
        bus.publish("r", Token("x" * 70_000))
    bus.publish("r", Token("y"))
    bus.close("r", bus.last_frame("r", END))
    assert texts(await read_all(bus)) == ["y"]


async def test_a_run_that_never_was_is_unknown():
    with pytest.raises(UnknownRun):
        await read_all(MemoryBus())
