"""Clients that leave, at every point of a run, and runs that are stopped: the LLM's connection is closed at once."""

import asyncio
import random
import statistics
import time
import uuid

import pytest

from tests.faults import recorder
from tests.faults.conftest import opened, settled
from tests.faults.postgres import fetch, until

POINTS = ["upload", "accepted", "retrieving", "reranking", "asked", "answering", "finishing"]
FIRST_AT = {
    "accepted": "run_start",
    "retrieving": "retrieval_start",
    "reranking": "reranking_start",
    "asked": "generation_start",
    "finishing": "generation_complete",
}
AT_ONCE = 5
MEDICINES = ("aripiprazole", "sertraline", "lithium", "metformin")
ANSWERS = "select r.status, m.content from run r left join message m on m.id = r.message_id where r.session_id = $1"


async def leave_at(point, server, marker):
    """Ask, leave at the point, and return when that was, and what had been read of the answer."""
    mode = {"asked": "silent", "answering": "slow"}.get(point, "plain")
    question = f"aripiprazole {marker} llm:{mode}"
    body = {"message": question, "session_id": marker}
    sent = 40 if point == "upload" else None
    stream = await recorder.send_request(server, "POST", "/chat", body, send_bytes=sent)
    if point == "upload":
        await asyncio.sleep(0.01)
    elif point == "answering":
        await stream.read_head()
        await stream.until(lambda event: event["content"] == " w2")
    else:
        await stream.read_head()
        await stream.until(FIRST_AT[point])
    if point == "asked":
        await asyncio.sleep(0.03)  # for the request to reach the far end
    return stream.leave(random.choice(["close", "reset"])), stream.answer


async def one_leaves(point, server, llm, database):
    """Return how long after leaving the far end was closed and the run was stored, in ms; None where nothing was."""
    marker = f"leave-{uuid.uuid4().hex}"
    left, seen = await leave_at(point, server, marker)
    stored_ms = None
    if point != "upload":

        async def ended():
            return "running" not in [row["status"] for row in await fetch(database, ANSWERS, marker)]

        await until(ended)
        stored_ms = (time.monotonic() - left) * 1000
        [row] = await fetch(database, ANSWERS, marker)
        assert row["status"] == "cancelled" or (point in {"finishing", "accepted", "retrieving", "reranking"})
        assert row["content"].startswith(seen)
    calls = llm.calls_about(marker)
    if point == "upload":
        assert calls == []

    async def closed():
        return all(call.closed_at for call in calls)

    await until(closed)
    left_early = [call for call in calls if point in {"asked", "answering"}]
    closed_ms = max([(call.closed_at - left) * 1000 for call in left_early], default=None)
    await remembers(server, llm, marker, point)
    return closed_ms, stored_ms


async def remembers(server, llm, session, point):
    """Assert that the session's next message works and knows the earlier ones."""
    marker = uuid.uuid4().hex
    stream = await recorder.whole(server, f"aripiprazole {marker}", session_id=session)
    assert stream.last == "done"
    turns = [turn["content"] for turn in llm.calls_about(marker)[-1].request["messages"][1:-1]]
    assert any(session in turn for turn in turns) == (point != "upload")
    if point == "answering":
        assert any(turn.startswith(" w0 w1 w2") for turn in turns)


def p99(values):
    return statistics.quantiles(values, n=100, method="inclusive")[98]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", POINTS)
async def test_a_client_that_leaves_ends_its_run_wherever_it_is(point, troubled, llm, sample_database, times):
    await recorder.whole(troubled, "aripiprazole")
    before = await opened(troubled)
    measured = []
    for _ in range(times(10, 150) // AT_ONCE):
        together = [one_leaves(point, troubled, llm, sample_database) for _ in range(AT_ONCE)]
        measured += await asyncio.gather(*together)
    await settled(troubled, before)
    for what, limit_ms, column in (("closed", 100, 0), ("stored", 1000, 1)):
        if values := [row[column] for row in measured if row[column] is not None]:
            print(f"{point}: {what} after p50 {statistics.median(values):.1f}, p99 {p99(values):.1f} ms, "
                  f"{len(values)} times")  # fmt: skip
            assert statistics.median(values) < limit_ms


async def test_an_explicit_stop_closes_the_far_end_and_tells_every_reader(troubled, llm, sample_database, times):
    closed, told = [], []
    for _ in range(times(10, 150)):
        marker = f"stop-{uuid.uuid4().hex}"
        async with await recorder.ask(troubled, f"llm:slow {marker}", session_id=marker) as stream:
            await stream.until(lambda event: event["content"] == " w2")
            asked = time.monotonic()
            await recorder.cancel(troubled, stream.run_id)
            await stream.rest()
            recorder.check(stream)
            assert stream.last == "cancelled"
            told.append((stream.came_at[-1] - asked) * 1000)
        [call] = llm.calls_about(marker)

        async def is_closed(call=call):
            return call.closed_at

        await until(is_closed)
        closed.append((call.closed_at - asked) * 1000)
    print(f"stop: closed after p50 {statistics.median(closed):.1f}, p99 {p99(closed):.1f} ms; "
          f"told after p50 {statistics.median(told):.1f}, p99 {p99(told):.1f} ms, {len(told)} times")  # fmt: skip
    assert statistics.median(closed) < 100
    assert statistics.median(told) < 100


async def cancel_at_random(server, n):
    """Ask, and go away up to 50 ms after that or after the first event, closing or resetting."""
    message = random.choice(["aripiprazole llm:slow", "aripiprazole", "llm:silent", "trouble:hang", "trouble:thread"])
    stream = await recorder.send_request(server, "POST", "/chat", {"message": message, "session_id": uuid.uuid4().hex})
    if n % 2:
        await stream.read_head()
        await stream.until_count(1)
    await asyncio.sleep(random.random() * 0.05)
    stream.leave(random.choice(["close", "reset"]))


@pytest.mark.timeout(3600)
async def test_after_many_random_cancels_everything_is_as_before(troubled, llm, sample_database, times):
    """Tasks, sockets, connections of the pool and backends of the database are back, and no run is left running."""
    places = asyncio.Semaphore(50)

    async def one(n):
        async with places:
            await cancel_at_random(troubled, n)

    async def many(count):
        await asyncio.gather(*[one(n) for n in range(count)])

    await recorder.whole(troubled, "aripiprazole")
    resting = await opened(troubled)
    await many(times(200, 10_000))  # threads, their stacks and connections are made as they are needed, and kept
    await asyncio.sleep(times(4, 15))
    before = await opened(troubled)
    count = times(300, 10_000)
    await many(count)
    _, took_s = await settled(troubled, resting)
    await asyncio.sleep(times(0, 15))  # the bus keeps what has ended for a while
    after = await opened(troubled)
    print(f"{count} cancels: all back after {took_s:.2f} s, {before['used_mb']:.1f} -> {after['used_mb']:.1f} MB, "
          f"{before['rss_mb']:.1f} -> {after['rss_mb']:.1f} MB with what the allocator keeps")  # fmt: skip

    async def all_ended():
        return not await fetch(sample_database, "select id from run where status = 'running'")

    await until(all_ended)
    active = "select pid from pg_stat_activity where state = 'active' and application_name = 'stagecast'"
    assert not await fetch(sample_database, active)
    assert llm.open == 0
    assert after["used_mb"] < before["used_mb"] + times(5, 3)


@pytest.mark.timeout(3600)
async def test_memory_stays_as_it_is_over_many_whole_streams(start_troubled, sample_database, server, times):
    quoting = await asyncio.to_thread(start_troubled, database_url=sample_database, llm_model=None, llm_api_base=None)
    rounds, count = 5, times(40, 4000)
    places = asyncio.Semaphore(8)
    used = []

    async def one(n):
        question = f"What are the side effects of {MEDICINES[n % 4]}?"
        async with places, await recorder.ask(quoting, question) as stream:
            await stream.rest()
            recorder.check(stream)
            assert stream.last == "done"

    for _ in range(rounds):
        await asyncio.gather(*[one(n) for n in range(count)])
        await asyncio.sleep(times(0, 11))  # until the bus has let the last ones go
        used.append((await opened(quoting))["used_mb"])
    shown = ", ".join(f"{mb:.1f}" for mb in used)
    print(f"{rounds * count} whole streams: {shown} MB after each {count}")
    assert used[-1] < used[0] + 10
