"""The server's own end, by a signal or by force: every reader is told, nothing that was said is lost."""

import asyncio
import signal
import time

import pytest

from tests.faults import recorder
from tests.faults.postgres import fetch, until

PARTIAL = "Hello from the"


async def waiting_streams(server, count, **body):
    """Return so many streams that have three tokens each and wait for more."""
    streams = await asyncio.gather(
        *[recorder.ask(server, "aripiprazole llm:stall", session_id=f"wait-{n}", **body) for n in range(count)]
    )
    await asyncio.gather(*[stream.until(lambda event: event["content"] == " the", 90) for stream in streams])
    return streams


async def exit_of(server, timeout_s=20):
    return await asyncio.to_thread(server.process.wait, timeout_s)


@pytest.mark.timeout(300)
async def test_a_signal_tells_every_reader_stores_every_answer_and_ends_the_server(start_troubled, new_database, times):
    database = await asyncio.to_thread(new_database)
    server = await asyncio.to_thread(start_troubled, database_url=database)
    count = times(60, 200)
    streams = await waiting_streams(server, count)
    asked = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*[stream.rest() for stream in streams])
    for stream in streams:
        recorder.check(stream)
        error = stream.events[-1]["content"]
        assert (error["code"], error["retryable"], stream.retry) == ("SERVER_RESTART", True, 1000)
    assert await exit_of(server) in {0, -signal.SIGTERM}
    ended_s = time.monotonic() - asked
    told_s = max(stream.came_at[-1] for stream in streams) - asked
    print(f"{count} streams: the last told after {told_s:.2f} s, exit after {ended_s:.2f} s")
    found = await fetch(database, "select content, status from message where role = 'assistant'")
    assert [(row["content"], row["status"]) for row in found] == [(PARTIAL, "error")] * count
    log = server.log_path.read_text()
    assert "Traceback" not in log
    assert '"exception"' not in log
    assert told_s < 10
    assert ended_s < 15
    await close(streams)


async def close(streams):
    for stream in streams:
        async with stream:
            pass


async def test_a_second_signal_is_harmless(start_troubled, sample_database):
    server = await asyncio.to_thread(start_troubled, database_url=sample_database)
    streams = await waiting_streams(server, 3)
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*[stream.rest() for stream in streams])
    assert await exit_of(server) in {0, -signal.SIGTERM}
    await close(streams)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_a_thread_that_cannot_be_stopped_does_not_hold_up_the_end(start_troubled, sample_database, how):
    server = await asyncio.to_thread(start_troubled, database_url=sample_database)
    async with await recorder.ask(server, "trouble:thread_forever") as stream:
        await stream.until("trouble_start")
        asked = time.monotonic()
        server.process.send_signal(how)
        await stream.rest()
        assert stream.events[-1]["content"]["code"] == "SERVER_RESTART"
    await exit_of(server)
    assert time.monotonic() - asked < 15


async def test_a_signal_during_the_start_ends_it_soon(start_server):
    for wait_s in (0.3, 1.0, 2.0):
        server = await asyncio.to_thread(start_server, ready=False)
        await asyncio.sleep(wait_s)
        asked = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert await exit_of(server) in {0, -signal.SIGTERM}
        assert time.monotonic() - asked < 15
        assert "Traceback" not in server.log_path.read_text()


@pytest.mark.timeout(300)
async def test_a_killed_server_loses_no_question_and_the_next_one_closes_its_runs(start_troubled, new_database):
    """Fifty streams, some of them between question and first token."""
    database = await asyncio.to_thread(new_database)
    server = await asyncio.to_thread(start_troubled, database_url=database)
    streams = await waiting_streams(server, 40)
    quick = [
        await recorder.send_request(server, "POST", "/chat", {"message": "llm:silent", "session_id": f"quick-{n}"})
        for n in range(10)
    ]
    for stream in quick:
        await stream.read_head()
        await stream.until("run_start")
    server.process.kill()
    await asyncio.gather(*[stream.rest() for stream in (*streams, *quick)])
    accepted = {stream.run_id for stream in (*streams, *quick)}
    questions = await fetch(database, "select run_id from message where role = 'user'")
    assert accepted == {row["run_id"] for row in questions}
    begun = time.monotonic()
    heir = await asyncio.to_thread(start_troubled, database_url=database)

    async def closed():
        found = await fetch(database, "select id from run where status = 'error' and error ->> 'code' = 'WORKER_LOST'")
        return {row["id"] for row in found} == accepted

    await until(closed)
    print(f"50 runs of a killed server: closed {time.monotonic() - begun:.2f} s after the next was started")
    for stream in streams[:3]:
        async with await recorder.resume(heir, stream.run_id, len(stream.events)) as rest:
            await rest.rest()
            assert rest.last == "error"
            assert rest.last_id == len(stream.events) + 1
        again = await recorder.whole(heir, "aripiprazole", session_id=f"wait-{streams.index(stream)}")
        assert again.last == "done"
    await close([*streams, *quick])


async def test_two_servers_know_each_others_runs(start_troubled, sample_database, troubled):
    """A run of the one is stopped by nobody else, and replayed by the other once it has ended."""
    other = await asyncio.to_thread(start_troubled, database_url=sample_database)
    async with await recorder.ask(troubled, "llm:stall", session_id="both") as stream:
        await stream.until("token")
        run = f"/runs/{stream.run_id}"
        assert (await recorder.fetch(other, "GET", run))[2]["status"] == "running"
        body = {"message": "x", "session_id": "both"}
        status, _, busy = await recorder.fetch(other, "POST", "/chat", body)
        assert (status, busy["run_id"]) == (409, stream.run_id)
        status, headers, _ = await recorder.fetch(other, "GET", f"{run}/events")
        assert (status, "retry-after" in headers) == (503, True)
        for method, path in (("POST", f"{run}/cancel"), ("DELETE", "/sessions/both")):
            status, headers, _ = await recorder.fetch(other, method, path)
            assert (status, "retry-after" in headers) == (503, True), path
        await recorder.cancel(troubled, stream.run_id)
        await stream.rest()

    async def replayed():
        async with await recorder.resume(other, stream.run_id, 0) as again:
            return again.status == 200 and await again.rest() and again.frames == stream.frames

    await until(replayed)
