"""PostgreSQL is killed, frozen, locked, cut off: every fault becomes an answer or an event, and nothing is lost."""

import asyncio
import os
import signal
import time
import uuid
from contextlib import asynccontextmanager

import asyncpg
import httpx
import numpy as np
import pytest
from pgvector import HalfVector
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from api.runs import new_run
from api.storage import database, patience
from api.storage.patience import LimitedEngine, is_passing
from api.storage.runs import PostgresRuns
from api.storage.worker import Worker
from pipeline.bus import MemoryBus
from pipeline.events import Token, stage_events
from pipeline.live import Limits
from pipeline.runner import Runner
from tests.conftest import ask, first
from tests.faults.invariants import (
    check_nothing_left,
    check_refused_politely,
    check_stored,
    check_whole,
    events_of,
    text_of,
)
from tests.faults.postgres import KillablePostgres, connection_to, fetch, locked, until
from tests.faults.proxy import FaultProxy

POOL = 4
NOISE_S = 3
"""What a machine that does other things may add to any time below."""
Start, Complete = stage_events("work")


@pytest.fixture(scope="module")
def killable(tmp_path_factory):
    with KillablePostgres(tmp_path_factory.mktemp("killable")) as server:
        yield server


@pytest.fixture(scope="module")
def server(start_server, killable, llm):
    """Lend a server with four connections to a database that can be killed, and the LLM's far end."""
    settings = {"llm_model": "openai/fake", "llm_api_base": llm.url}
    return start_server(database_url=killable.url, database_pool=POOL, **settings)


@asynccontextmanager
async def client_of(server):
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        yield client


class Reading:
    """A question that is being answered, and what was read of the answer."""

    def __init__(self, client, message, **body):
        self.read = ""
        self.status = None
        self.ended_at = None
        self.task = asyncio.ensure_future(self._read(client, {"message": message, **body}))

    async def _read(self, client, body):
        async with client.stream("POST", "/chat", json=body) as response:
            self.status = response.status_code
            async for piece in response.aiter_text():
                self.read += piece
        self.ended_at = time.monotonic()

    @property
    def events(self):
        return events_of(self.read[: self.read.rfind("\n\n") + 2])

    @property
    def run_id(self):
        return self.events[0][2]["run_id"]

    async def seen(self, what, seconds=30):
        async def is_there():
            assert not self.task.done() or what in self.read, self.read
            return what in self.read

        await until(is_there, seconds)


async def timed(request):
    """Return the response and how long it took, in seconds."""
    begun = time.monotonic()
    return await request, time.monotonic() - begun


async def until_ready(client, status, seconds):
    async def answers():
        return (await client.get("/health/ready")).status_code == status

    return await until(answers, seconds)


async def until_answered(client, seconds):
    async def answers():
        return (await client.post("/chat", json={"message": "Hello?"})).status_code == httpx.codes.OK

    return await until(answers, seconds)


async def kill_while_streaming(server, killable, *, streams=20, down_s=3):
    """Kill PostgreSQL under streams and start it again; return the streams when all have ended, and figures."""
    figures = {}
    async with client_of(server) as client:
        readings = [Reading(client, "llm:slow") for _ in range(streams)]
        await asyncio.gather(*(reading.seen('" w100"') for reading in readings))
        await asyncio.to_thread(killable.kill)
        killed = time.monotonic()
        figures["not_ready_s"] = await until_ready(client, 503, 10)
        refused, figures["refused_s"] = await timed(client.post("/chat", json={"message": "Hello?"}))
        check_refused_politely(refused)
        await asyncio.sleep(down_s - (time.monotonic() - killed))
        await asyncio.to_thread(killable.start)
        figures["answered_again_s"] = await until_answered(client, 10)
        await asyncio.gather(*(reading.task for reading in readings))
    return readings, figures


@pytest.mark.timeout(180)
async def test_kill_9_of_postgresql_under_streams_loses_nothing(server, killable, times):
    for _ in range(times(1, 3)):
        await one_kill(server, killable)


async def one_kill(server, killable):
    readings, figures = await kill_while_streaming(server, killable)
    assert figures["not_ready_s"] < 1 + NOISE_S
    assert figures["refused_s"] < 1.1 + NOISE_S
    assert figures["answered_again_s"] < 1 + NOISE_S
    for reading in readings:
        assert check_whole(reading.events)[0] == "done"
        assert text_of(reading.events) == "".join(f" w{n}" for n in range(200))
        await check_stored(killable.url, reading.events)
    await check_nothing_left(killable.url)
    print(f"PostgreSQL killed: {len(readings)} of {len(readings)} streams done and stored as told; {shown(figures)}")


def shown(figures):
    return ", ".join(f"{what.removesuffix('_s')} after {seconds:.2f} s" for what, seconds in figures.items())


FROZEN = {
    "POST /chat": {"json": {"message": "Hello?"}},
    "GET /sessions": {},
    "GET /runs/unknown": {},
    "GET /documents": {},
    "POST /search": {"json": {"query": "Hello?"}},
    "GET /health/ready": {},
}


async def freeze_under_load(server, killable, *, frozen_s):
    """Freeze PostgreSQL; return how every kind of call was answered and how long that took, and further figures.

    ``cancelled_s``: from the request to cancel a run that waits for the database to its reader's last event.
    ``left_s``: from a reader's leaving to the end of its run. ``whole_s``: from the thaw to as many answers at once as
    there are connections.
    """
    figures = {}
    async with client_of(server) as client:
        await _fill_pool(client, killable)
        async with locked(killable.url, "chunk"):
            readings = [Reading(client, f"Waits {n}") for n in range(2)]
            await asyncio.gather(*(reading.seen("retrieval_start") for reading in readings))
            killable.freeze()
        frozen = time.monotonic()
        try:
            calls = asyncio.gather(*(timed(client.request(*call.split(), **rest)) for call, rest in FROZEN.items()))
            await asyncio.sleep(0.1)
            figures["cancelled_s"] = await _cancelled(client, readings[0])
            figures["left_s"] = await _left(client, readings[1])
            answers = dict(zip(FROZEN, await calls, strict=True))
            await asyncio.sleep(frozen_s - (time.monotonic() - frozen))
        finally:
            killable.thaw()
        figures["whole_s"] = await _whole(client)
    return answers, readings, figures


async def _fill_pool(client, killable):
    """Have all connections opened; some will be idle, and be tried out first, when the database freezes."""
    waiting = "select count(*) from pg_stat_activity where application_name = 'stagecast' and wait_event_type = 'Lock'"

    async def all_wait():
        return (await fetch(killable.url, waiting))[0]["count"] == POOL

    async with locked(killable.url, "session"):
        calls = [asyncio.ensure_future(client.get("/sessions")) for _ in range(POOL)]
        await until(all_wait, 10)
    await asyncio.gather(*calls)


async def _cancelled(client, reading):
    begun = time.monotonic()
    stopped, _ = await asyncio.gather(client.post(f"/runs/{reading.run_id}/cancel"), reading.task)
    assert stopped.json()["status"] == "cancelled"
    assert check_whole(reading.events)[0] == "cancelled"
    return reading.ended_at - begun


async def _left(client, reading):
    reading.task.cancel()

    async def is_cancelled():
        return (await client.get(f"/runs/{reading.run_id}")).json()["status"] == "cancelled"

    return await until(is_cancelled, 10)


async def _whole(client):
    async def all_answer():
        responses = await asyncio.gather(*(client.get("/sessions") for _ in range(POOL)))
        return all(response.status_code == httpx.codes.OK for response in responses)

    return await until(all_answer, 20)


async def test_a_frozen_postgresql_keeps_nobody_waiting(server, killable, times):
    answers, readings, figures = await freeze_under_load(server, killable, frozen_s=times(0, 10))
    slowest_s = max(took_s for _, took_s in answers.values())
    print(f"PostgreSQL frozen: the slowest call answered after {slowest_s:.2f} s, {shown(figures)}")
    for call, (response, took_s) in answers.items():
        check_refused_politely(response)
        assert took_s < (1 if "ready" in call else patience.REQUEST_S + patience.ACKNOWLEDGE_S) + NOISE_S, call
    assert figures["cancelled_s"] < 0.1 + NOISE_S
    assert figures["left_s"] < 0.1 + NOISE_S
    assert figures["whole_s"] < 2 + NOISE_S
    await check_nothing_left(killable.url)
    await check_stored(killable.url, readings[0].events)


async def exhaust(server, killable, *, held_s, asked=100):
    """Ask many questions while a lock holds up all that are stored; return the responses with their times."""
    async with client_of(server) as client:
        async with locked(killable.url, "run"):
            calls = [asyncio.ensure_future(timed(client.post("/chat", json={"message": "Hi"}))) for _ in range(asked)]
            await asyncio.sleep(held_s)
        return await asyncio.gather(*calls)


async def test_when_every_connection_is_taken_the_others_wait_for_their_turn(server, killable):
    answers = await exhaust(server, killable, held_s=1)
    for response, took_s in answers:
        assert took_s < patience.REQUEST_S + NOISE_S
        if response.status_code != httpx.codes.OK:
            check_refused_politely(response)
    answered = [events_of(response.text) for response, _ in answers if response.status_code == httpx.codes.OK]
    assert len(answered) >= POOL
    for events in answered:
        assert check_whole(events)[0] == "done"
        await check_stored(killable.url, events)
    await check_nothing_left(killable.url)


async def test_when_no_turn_comes_all_are_told_to_come_back(server, killable):
    answers = await exhaust(server, killable, held_s=patience.REQUEST_S + 1)
    for response, took_s in answers:
        check_refused_politely(response)
        assert took_s < patience.REQUEST_S + patience.ACKNOWLEDGE_S + NOISE_S
    await check_nothing_left(killable.url)


@pytest.mark.parametrize(("mode", "asked"), [("cancel", 0), ("continue", 1)])
async def test_a_question_whose_client_leaves_while_it_waits_for_a_connection_is_not_asked(
    server, killable, mode, asked
):
    session = f"left-{mode}"
    body = {"message": "Hi", "session_id": session, "on_disconnect": mode}
    async with client_of(server) as client:
        async with locked(killable.url, "run"):
            holders = [asyncio.ensure_future(client.post("/chat", json={"message": "Hi"})) for _ in range(POOL)]
            await asyncio.sleep(0.3)
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/chat", json=body, timeout=0.3)
        await asyncio.gather(*holders)
    await check_nothing_left(killable.url)
    assert len(await fetch(killable.url, "select id from run where session_id = $1", session)) == asked


async def test_streams_hold_no_connection_while_they_wait_for_tokens(server, killable):
    async with client_of(server) as client:
        readings = [Reading(client, "llm:stall") for _ in range(10 * POOL)]
        await asyncio.gather(*(reading.seen('"type":"token"') for reading in readings))
        taken = await fetch(
            killable.url,
            "select state, query from pg_stat_activity where application_name = 'stagecast' and state <> 'idle'",
        )
        responses = await asyncio.gather(*(client.get("/sessions") for _ in range(POOL)))
        for reading in readings:
            reading.task.cancel()
    assert [response.status_code for response in responses] == [httpx.codes.OK] * POOL
    assert taken == []
    await check_nothing_left(killable.url)


@asynccontextmanager
async def engine_to(url, pool):
    engine = database.connect(url, pool)
    try:
        yield LimitedEngine(engine)
    finally:
        await engine.dispose()


async def by_connection(engine, query):
    async with engine.connect() as connection:
        await connection.execute(text(query))


async def directly(engine, query):
    await engine.fetch(query)


either_way = pytest.mark.parametrize("ask_by", [by_connection, directly])


async def cancel_queries(url, ask_by, *, queries=24):
    """Cancel slow queries; return how long their backends go on, in seconds."""

    async def active():
        rows = await fetch(
            url, "select count(*) from pg_stat_activity where query like '%pg_sleep(6)' and state = 'active'"
        )
        return rows[0]["count"]

    async def all_active():
        return await active() == queries

    async def none_active():
        return await active() == 0

    async with engine_to(url, queries) as engine:
        tasks = [asyncio.ensure_future(ask_by(engine, "select pg_sleep(6)")) for _ in range(queries)]
        await until(all_active, 10)
        for task in tasks:
            task.cancel()
        took_s = await until(none_active, 6)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert engine.sync_engine.pool.checkedout() == 0
    return took_s


@either_way
async def test_cancelled_queries_do_not_go_on_in_the_server(killable, ask_by):
    assert await cancel_queries(killable.url, ask_by) < 1.2 + NOISE_S


@either_way
@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}])
async def test_nobody_has_a_connection_for_longer_than_a_request_may_take(killable, options, ask_by, monkeypatch):
    monkeypatch.setattr(patience, "REQUEST_S", 0.5)
    async with engine_to(killable.url, 1) as engine:
        with pytest.raises(TimeoutError):
            await ask_by(engine.execution_options(**options), "select pg_sleep(5)")
        assert engine.sync_engine.pool.checkedout() == 0


@either_way
async def test_a_cancelled_call_does_not_wait_for_a_frozen_server(killable, ask_by):
    async with engine_to(killable.url, 1) as engine:
        task = asyncio.ensure_future(ask_by(engine, "select pg_sleep(1)"))
        await asyncio.sleep(0.3)
        with killable.frozen():
            task.cancel()
            begun = time.monotonic()
            await asyncio.wait({task}, timeout=10)
            assert time.monotonic() - begun < 4 * patience.ACKNOWLEDGE_S
        assert task.cancelled()
        assert engine.sync_engine.pool.checkedout() == 0
        await ask_by(engine, "select pg_sleep(0.1)")


async def test_a_transaction_left_open_takes_nobody_elses_statements_with_it(killable):
    async def backend():
        return (await engine.fetch("select pg_backend_pid() as pid"))[0]["pid"]

    async with engine_to(killable.url, 1) as engine:
        left_open = await backend()
        await engine.fetch("begin")
        assert await backend() != left_open


async def test_a_value_of_the_wrong_type_is_no_fault_of_the_connections(killable):
    async with engine_to(killable.url, 1) as engine:
        [before] = await engine.fetch("select pg_backend_pid() as pid")
        with pytest.raises(asyncpg.DataError) as refused:
            await engine.fetch("select $1::int", "no number")
        assert not is_passing(refused.value)
        assert (await engine.fetch("select pg_backend_pid() as pid"))[0]["pid"] == before["pid"]


async def test_vectors_are_taken_in_each_of_their_forms(server, killable):
    async with engine_to(killable.url, 1) as engine:
        for vector in (np.array([1, 2], np.float32), [1.0, 2.0], HalfVector([1, 2]), "[1,2]"):
            [row] = await engine.fetch("select $1::halfvec::text as written", vector)
            assert row["written"] == "[1,2]"


async def test_a_connection_that_a_frozen_server_owes_an_answer_is_of_no_use_to_the_next(killable):
    url = killable.url.replace("+asyncpg", "")
    connection = await asyncpg.connect(url, connection_class=patience.PromptConnection)
    with killable.frozen():
        with pytest.raises(TimeoutError):
            await connection.execute("select 1", timeout=0.1)
        begun = time.monotonic()
        with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
            await connection.execute("rollback")
        assert time.monotonic() - begun < patience.ACKNOWLEDGE_S + NOISE_S
    assert connection.is_closed()


def waiting_for(gate):
    """Make a stage that waits, and then says a word."""

    class Waits:
        async def run(self, run):
            yield Start()
            await gate.wait()
            yield Token("word")
            yield Complete()

    return Waits()


def working():
    gate = asyncio.Event()
    gate.set()
    return [("work", waiting_for(gate))]


async def ended(runner, run):
    future = runner.told(run.id)
    assert future is not None
    return await asyncio.wait_for(asyncio.shield(future), 10)


async def test_an_answer_that_cannot_be_stored_in_time_is_an_error_and_is_stored_as_one(server, killable, monkeypatch):
    monkeypatch.setattr("pipeline.runner.STORE_DEADLINE_S", 1)
    gate = asyncio.Event()
    async with engine_to(killable.url, 2) as engine:
        runner = Runner([("work", waiting_for(gate))], MemoryBus(), PostgresRuns(engine, 1), Limits())
        run = new_run("", "Why?", None, {})
        async with Held(engine, runner):
            await runner.start(run)
            with killable.down():
                gate.set()
                outcome = await ended(runner, run)
            assert (outcome.status, outcome.error.code) == ("error", "INTERNAL_ERROR")
            stored = runner.ended(run.id)
            assert stored is not None
            await asyncio.wait_for(asyncio.shield(stored), 10)
    [row] = await fetch(killable.url, "select status from run where id = $1", run.id)
    assert row["status"] == "error"
    await check_nothing_left(killable.url)


class Held:
    """The advisory lock of worker 1, lest the running server take its runs for lost ones."""

    def __init__(self, engine, runner):
        self._worker = Worker(engine, 600, live=lambda: runner.ids)
        self._worker.key = 1

    async def __aenter__(self):
        await self._worker.begin()

    async def __aexit__(self, *_):
        await self._worker.end()


async def stored_outcome(engine, run):
    found = await PostgresRuns(engine, 0).find("", run.id)
    assert found is not None
    return found.outcome


HALF_STORED = """
with ended as (update run set status = 'cancelled' where id = $1 returning *)
insert into message (id, run_id, content, owner, session_id, role, status)
select message_id, id, 'so far', owner, session_id, 'assistant', 'cancelled' from ended
"""


async def test_a_question_that_comes_while_the_answer_before_it_is_stored_is_told_that_answer(server, killable):
    async with engine_to(killable.url, 2) as engine, connection_to(killable.url) as other:
        store = PostgresRuns(engine, 1)
        before = new_run("", "Why?", None, {})
        await store.begin(before)
        next_run = new_run("", "And then?", before.session_id, {})
        async with other.transaction():
            await other.execute(HALF_STORED, before.id)
            beginning = asyncio.create_task(store.begin(next_run))
            await until(lambda: waits_for_a_lock(killable.url))
        await beginning
    assert [(turn.role, turn.content) for turn in next_run.history] == [("user", "Why?"), ("assistant", "so far")]


async def waits_for_a_lock(url):
    return await fetch(url, "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%into run%'")


async def test_a_question_that_was_stored_but_never_begun_is_closed_at_the_next_look(server, killable):
    async with engine_to(killable.url, 2) as engine:
        runner = Runner(working(), MemoryBus(), PostgresRuns(engine, 1), Limits())
        run = new_run("", "Why?", None, {})
        await PostgresRuns(engine, 1).begin(run)
        async with Held(engine, runner):
            found = await stored_outcome(engine, run)
    assert found.error.code == "INTERNAL_ERROR"


async def test_a_run_taken_for_lost_while_the_database_was_away_is_stored_all_the_same(server, killable):
    async with engine_to(killable.url, 2) as engine:
        gate = asyncio.Event()
        runner = Runner([("work", waiting_for(gate))], MemoryBus(), PostgresRuns(engine, 2**41), Limits())
        run = new_run("", "Why?", None, {})
        await runner.start(run)

        async def is_closed():
            return (await stored_outcome(engine, run)).status == "error"

        await until(is_closed, 10)  # by the running server: nobody holds the lock of this worker
        gate.set()
        assert (await ended(runner, run)).status == "completed"
        found = await stored_outcome(engine, run)
    assert (found.status, found.answer, found.error) == ("completed", "word", None)


PASSING = ["08006", "25006", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P01", "58030"]


@pytest.mark.parametrize(
    ("state", "passing"), [*((state, True) for state in PASSING), ("42P01", False), ("22P02", False)]
)
async def test_what_the_database_cannot_do_now_is_told_from_what_it_never_will(killable, state, passing):
    async with engine_to(killable.url, 1) as engine:
        with pytest.raises(DBAPIError) as refusal:
            async with engine.begin() as connection:
                await connection.execute(text(f"do $$ begin raise exception using errcode = '{state}'; end $$"))
        assert is_passing(refusal.value) is passing


@pytest.mark.parametrize("half_close", [False, True], ids=["reset", "half-close"])
async def test_a_connection_that_breaks_off_anywhere_leaves_no_run_open(server, killable, half_close):
    url = make_url(killable.url)
    with FaultProxy(f"{url.query['host']}/.s.PGSQL.{url.query['port']}") as proxy:
        proxy.half_close = half_close
        through = f"postgresql+asyncpg://stagecast@127.0.0.1:{proxy.port}/{url.database}?ssl=disable"
        outcomes = set()
        for cut_after in range(0, 3000, 150):
            proxy.cut_after = cut_after
            async with engine_to(through, 1) as engine:
                outcomes.add(await stored_or_refused(engine))
        assert outcomes == {"stored", "refused"}
    await check_nothing_left(killable.url)


async def stored_or_refused(engine):
    """Run a question whose first storing may fail; its last is given up at once."""
    runner = Runner(working(), MemoryBus(), PostgresRuns(engine, 2**40), Limits())
    try:
        await runner.start(new_run("", "Why?", None, {}))
    except Exception as problem:  # that it is one of those that are answered with 503 is the point
        return "refused" if is_passing(problem) else repr(problem)
    await runner.close()
    return "stored"


async def test_a_network_that_swallows_everything_is_given_up_in_time(killable, monkeypatch):
    monkeypatch.setattr(patience, "REQUEST_S", 0.5)
    url = make_url(killable.url)
    with FaultProxy(f"{url.query['host']}/.s.PGSQL.{url.query['port']}") as proxy:
        through = f"postgresql+asyncpg://stagecast@127.0.0.1:{proxy.port}/{url.database}?ssl=disable"
        async with engine_to(through, 1) as engine:
            await one(engine)
            proxy.silent = True
            for _ in range(2):  # with the connection that was there, and with a new one
                begun = time.monotonic()
                with pytest.raises(TimeoutError):
                    await one(engine)
                assert time.monotonic() - begun < 0.5 + patience.ACKNOWLEDGE_S + NOISE_S
            proxy.silent = False
            await one(engine)
            assert engine.sync_engine.pool.checkedout() == 0


async def one(engine):
    async with engine.connect() as connection:
        return await connection.scalar(text("select 1"))


def test_a_server_whose_own_postgresql_is_killed_answers_again_by_itself(start_server):
    server = start_server(sample="false")
    session = f"before-{uuid.uuid4().hex}"
    ask(server, "Hello?", session_id=session)
    folder = server.log_path.parent / "data"
    os.kill(int((folder / "cluster" / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGKILL)
    killed = time.monotonic()
    while not any(line["event"] == "postgres.back" for line in server.log_lines()):
        assert time.monotonic() - killed < 20
        time.sleep(0.05)
    server.wait_ready()
    assert first(ask(server, "And now?", session_id=session), "run_start")["session_id"] == session
    assert httpx.get(f"{server.url}/sessions/{session}/messages").json()["total"] == 4
