"""The client in Python: all events, once and in order, whatever the connection does; leaving stops the run."""

import subprocess
import sys
import time
import uuid
from contextlib import aclosing

import pytest

from api.client import Client, Refused, Unknown, Unreachable, decoded, kind_of
from pipeline.events import Done, RunStart, Token
from tests.conftest import clean_environment, free_port
from tests.faults.proxy import FaultProxy
from tests.faulty_llm import TOKENS


async def all_events(client, message, **options):
    async with aclosing(client.ask(message, **options)) as events:
        return [found async for found in events]


async def test_an_answer_comes_as_typed_events(llm_server):
    async with Client(llm_server.url) as client:
        events = await all_events(client, "What is aripiprazole?", session_id=f"c-{uuid.uuid4()}")
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0][1], RunStart)
    assert isinstance(events[-1][1], Done)
    assert [event.content for _, event in events if isinstance(event, Token)] == TOKENS


@pytest.mark.parametrize("half_close", [False, True])
async def test_a_connection_that_breaks_again_and_again_loses_and_repeats_nothing(llm_server, half_close):
    with FaultProxy(("127.0.0.1", llm_server.port)) as proxy:
        proxy.cut_after, proxy.half_close = 6_000, half_close  # the event with the sources takes 4,000
        async with Client(f"http://127.0.0.1:{proxy.port}") as client:
            events = await all_events(client, "llm:slow")
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert [event.content for _, event in events if isinstance(event, Token)] == [f" w{n}" for n in range(200)]
    assert isinstance(events[-1][1], Done)


async def test_leaving_stops_the_run(llm_server, llm):
    before = len(llm.closed_at)
    async with Client(llm_server.url) as client, aclosing(client.ask("llm:slow")) as events:
        async for _, event in events:
            if isinstance(event, RunStart):
                run_id = event.content.run_id
            if isinstance(event, Token):
                break
    assert len(llm.closed_at) == before + 1
    async with Client(llm_server.url) as client:
        kinds = [kind_of(event) async for _, event in client.watch(run_id)]
    assert kinds[-1] == "cancelled"


async def test_a_run_is_watched_again_behind_what_was_seen(llm_server):
    async with Client(llm_server.url) as client:
        events = await all_events(client, "What is aripiprazole?")
        run_id = events[0][1].content.run_id
        assert [found async for found in client.watch(run_id)] == events
        assert [found async for found in client.watch(run_id, 3)] == events[3:]
        assert [found async for found in client.watch(run_id, len(events))] == []


async def test_what_the_server_refuses_is_told_with_its_reason(llm_server):
    async with Client(llm_server.url) as client:
        with pytest.raises(Refused, match=r"400.*session_id"):
            await all_events(client, "Why?", session_id="no/id")
        with pytest.raises(Refused, match="404"):
            [_ async for _ in client.watch("none")]


async def test_a_server_that_is_not_there_is_told_at_once():
    begun = time.monotonic()
    async with Client(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await all_events(client, "Why?")
    assert time.monotonic() - begun < 5


def test_an_event_of_another_stage_is_kept_as_it_is():
    event = decoded('{"type":"shout_start","content":{"stage":"shout"},"timestamp":"2026-01-01T00:00:00.000Z"}')
    assert event == Unknown("shout_start", {"stage": "shout"})
    assert kind_of(event) == "shout_start"


def test_ask_asks_a_running_server(llm_server, tmp_path):
    command = [sys.executable, "-m", "api.cli", "ask", "What is aripiprazole?", "--url", llm_server.url]
    environment = clean_environment(data_dir=tmp_path / "none")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "".join(TOKENS) + "\n")
    assert "[1] Aripiprazole" in done.stderr
    assert not (tmp_path / "none").exists()
