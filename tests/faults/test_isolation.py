"""One slow, silent or broken part: the others' tokens come as before, and the run in question ends with one event."""

import asyncio
import hashlib
import itertools
import statistics
import time

import pytest

from tests.faults import recorder
from tests.faults.conftest import opened, settled

WITNESSES = 4
GROWTH_MS = 400
"""Far above the 50 ms that are aimed at, which a soak prints: a test machine has pauses of its own."""


async def gaps_of_others(server, trouble=None):
    """Return p99 and maximum in ms of the gaps between tokens of streams that have nothing to do with the trouble."""
    watched = [asyncio.create_task(recorder.whole(server, "aripiprazole llm:slow")) for _ in range(WITNESSES)]
    await asyncio.sleep(0.5)
    found = await trouble() if trouble else None
    gaps = []
    for stream in await asyncio.gather(*watched):
        assert stream.last == "done"
        times = [at for at, event in zip(stream.came_at, stream.events, strict=True) if event["type"] == "token"]
        gaps += [(b - a) * 1000 for a, b in itertools.pairwise(times)]
    return statistics.quantiles(gaps, n=100, method="inclusive")[98], max(gaps), found


async def compared(server, name, trouble):
    """Return the growth of the others' p99 gap while there is trouble, in ms, and what the trouble returned."""
    calm, _, _ = await gaps_of_others(server)
    p99, most, found = await gaps_of_others(server, trouble)
    print(f"{name}: p99 gap between the others' tokens {calm:.1f} -> {p99:.1f} ms, at most {most:.0f} ms")
    return p99 - calm, found


async def test_readers_that_never_read_cost_the_others_nothing_and_little_memory(troubled, times):
    first = await recorder.whole(troubled, "trouble:many aripiprazole")
    count = times(60, 200)
    before = await opened(troubled)

    async def never_read():
        return [
            await recorder.send_request(troubled, "GET", f"/runs/{first.run_id}/events", received_bytes=4096)
            for _ in range(count)
        ]

    growth, silent = await compared(troubled, f"{count} readers that never read", never_read)
    during = await opened(troubled)
    print(f"memory {before['rss_mb']:.0f} -> {during['rss_mb']:.0f} MB with them")
    assert growth < GROWTH_MS
    assert during["rss_mb"] < before["rss_mb"] + 100
    assert during["fds"] >= before["fds"] + count
    for stream in silent:
        async with stream:
            pass
    await settled(troubled, before)


async def test_a_plugin_that_blocks_the_loop_is_named_in_the_log(troubled):
    seen = len(troubled.log_lines())
    growth, stream = await compared(
        troubled,
        "a plugin that blocks the loop for 2 s",
        lambda: recorder.whole(troubled, "trouble:block"),
    )
    assert stream.last == "done"
    assert growth < GROWTH_MS
    blocked = [line for line in troubled.log_lines()[seen:] if line["event"] == "loop.blocked"]
    assert "stage trouble" in [line["plugin"] for line in blocked]
    assert "hold_the_loop" in next(line["at"] for line in blocked if line["plugin"])


async def test_a_plugin_that_floods_leaves_the_others_their_turn(troubled):
    flood = {"message": "trouble:flood"}
    growth, (_, tokens, last) = await compared(
        troubled, "a plugin that yields 100,000 tokens at once", lambda: recorder.drained(troubled, "/chat", flood)
    )
    assert last == "done"
    assert tokens >= 100_000
    assert growth < GROWTH_MS


async def test_a_plugin_that_holds_a_thread_does_not_hold_the_others(troubled):
    growth, stream = await compared(
        troubled, "a plugin that holds a thread for 3 s", lambda: recorder.whole(troubled, "trouble:thread")
    )
    assert stream.last == "done"
    assert growth < GROWTH_MS


async def test_more_hanging_threads_than_the_pool_has_do_not_stop_retrieval(troubled):
    """Their runs are stopped; the threads cannot be."""
    for _ in range(6):
        async with await recorder.ask(troubled, "trouble:thread_long") as stream:
            await stream.until("trouble_start")
            await recorder.cancel(troubled, stream.run_id)
    begun = time.monotonic()
    assert (await recorder.whole(troubled, "aripiprazole")).last == "done"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("mode", ["giant", "giant_stage"])
async def test_an_event_of_fifty_megabytes_is_refused(troubled, mode):
    before = await opened(troubled)
    growth, stream = await compared(
        troubled, f"an event of 50 MB ({mode})", lambda: recorder.whole(troubled, f"trouble:{mode}")
    )
    assert (stream.last, stream.events[-1]["content"]["code"]) == ("error", "STAGE_ERROR")
    assert growth < GROWTH_MS
    after = await opened(troubled)
    print(f"memory {before['rss_mb']:.0f} -> {after['rss_mb']:.0f} MB after it")
    assert after["rss_mb"] < before["rss_mb"] + 60


@pytest.mark.parametrize("mode", ["raise", "exit", "leak", "garbage"])
async def test_a_stage_that_fails_in_any_way_ends_its_run_alone(troubled, mode):
    before = await opened(troubled)
    stream = await recorder.whole(troubled, f"trouble:{mode}")
    assert (stream.last, stream.events[-1]["content"]["code"]) == ("error", "STAGE_ERROR")
    assert "canary" not in stream.body.decode()
    assert "canary" not in troubled.log_path.read_text()
    status, _, run = await recorder.fetch(troubled, "GET", f"/runs/{stream.run_id}")
    assert (status, run["status"]) == (200, "error")
    await settled(troubled, before)


async def test_a_stage_that_hangs_is_ended_by_its_own_idle_limit(start_troubled, sample_database, server):
    strict = await asyncio.to_thread(
        start_troubled, database_url=sample_database, stage_idle_timeouts_s="trouble=0.5,retrieval=20"
    )
    begun = time.monotonic()
    stream = await recorder.whole(strict, "trouble:hang")
    error = stream.events[-1]["content"]
    assert (error["code"], error["stage"]) == ("IDLE_TIMEOUT", "trouble")
    assert 0.5 <= time.monotonic() - begun < 5


async def test_a_stop_does_not_wait_for_a_stage_that_is_deaf_to_it(troubled):
    async with await recorder.ask(troubled, "trouble:deaf") as stream:
        await stream.until("trouble_start")
        asked = time.monotonic()
        run = await recorder.cancel(troubled, stream.run_id)
        print(f"a deaf stage: stopped after {(time.monotonic() - asked) * 1000:.0f} ms")
        assert time.monotonic() - asked < 1
        assert run["status"] == "cancelled"
        await stream.rest()
        recorder.check(stream)
        assert stream.last == "cancelled"
        assert stream.answer == ""


async def test_a_replay_of_many_events_leaves_the_others_their_turn(troubled):
    first = await recorder.whole(troubled, "trouble:many aripiprazole")

    async def replay_five():
        return await asyncio.gather(*[recorder.drained(troubled, f"/runs/{first.run_id}/events") for _ in range(5)])

    growth, replays = await compared(troubled, "five replays of 20,000 events", replay_five)
    assert {digest for digest, _, _ in replays} == {hashlib.sha256(first.frames).hexdigest()}
    assert growth < GROWTH_MS
