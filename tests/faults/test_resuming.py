"""Streams that are cut and resumed: the same events, every time."""

import asyncio
import random

import pytest

from tests.faults import recorder

QUESTION = "aripiprazole llm:plain"


async def cut_and_resumed(server, run_id, length, request):
    """Read the first ``length`` bytes of a stream, go away, resume behind the last whole event; return all bytes."""
    async with request as stream:
        await stream.read_head()
        stream.limit = length
        await stream.rest()
        stream.leave(random.choice(["close", "reset"]))
    seen = stream.body[: stream.body.rfind(b"\n\n") + 2] if b"\n\n" in stream.body else b""
    async with await recorder.resume(server, run_id, len(stream.events)) as rest:
        if rest.status == 204:
            return seen
        await rest.rest()
        recorder.check(rest)
        return seen + rest.frames


@pytest.mark.timeout(1800)
async def test_a_stream_that_is_cut_after_any_byte_is_resumed_to_the_same_events(troubled, times):
    stream = await recorder.whole(troubled, QUESTION)
    whole, run_id = stream.frames, stream.run_id
    lengths = range(0, len(whole) + 1, times(97, 1))
    for length in lengths:
        again = await recorder.send_request(troubled, "GET", f"/runs/{run_id}/events")
        assert await cut_and_resumed(troubled, run_id, length, again) == whole, length
    print(f"{len(lengths)} cuts of a stream of {len(whole)} bytes and {len(stream.events)} events")


@pytest.mark.timeout(1800)
async def test_a_stream_that_is_cut_while_it_runs_is_resumed_to_what_another_reader_saw(troubled, times):
    for _ in range(times(8, 300)):
        body = {"message": f"{QUESTION} {random.random()}", "on_disconnect": "continue"}
        async with await recorder.send_request(troubled, "POST", "/chat", body) as first:
            await first.read_head()
            await first.until("run_start")
            other = await recorder.resume(troubled, first.run_id, 0)
            watching = asyncio.create_task(other.rest())
            await first.until_count(random.randint(1, 12))
            first.leave(random.choice(["close", "reset"]))
        async with await recorder.resume(troubled, first.run_id, len(first.events)) as rest:
            await rest.rest()
        async with other:
            await watching
            recorder.check(other)
        assert first.events + rest.events == other.events
        assert other.last == "done"


async def test_a_run_cannot_be_resumed_behind_its_end(troubled):
    stream = await recorder.whole(troubled, QUESTION)
    async with await recorder.resume(troubled, stream.run_id, len(stream.events) + 1) as beyond:
        assert beyond.status == 400
        assert b"Last-Event-ID" in await beyond.read_plain()
    async with await recorder.ask(troubled, "llm:silent", on_disconnect="continue") as running:
        await running.until("generation_start")
        async with await recorder.resume(troubled, running.run_id, 1000) as beyond:
            assert beyond.status == 400
        await recorder.cancel(troubled, running.run_id)
