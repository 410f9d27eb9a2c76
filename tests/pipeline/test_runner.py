"""The runner: whatever a stage does, a run ends with exactly one terminal event."""

import asyncio
import contextlib
import json
import threading
import time
from contextlib import aclosing

import msgspec
import pytest
import structlog

from pipeline.bus import MemoryBus
from pipeline.errors import GenerationFailed, RunGone
from pipeline.events import (
    Done,
    Event,
    Finished,
    GenerationComplete,
    GenerationCompleted,
    GenerationStart,
    GenerationStarted,
    Token,
    Tokens,
    stage_events,
)
from pipeline.fakes import MemoryStore
from pipeline.live import Limits, Stop
from pipeline.ports import Message, Run
from pipeline.runner import Runner
from pipeline.threads import Threads

Start, Complete = stage_events("work")


def stage_of(*steps):
    """Make a stage that yields events, raises exceptions, and awaits what is callable."""

    class Scripted:
        async def run(self, run):
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if callable(step):
                    await step()
                else:
                    yield step

    return Scripted()


def a_run(session="s"):
    return Run(id="r", session_id=session, message_id="m", question="Why?")


async def forever():
    await asyncio.Event().wait()


async def ran(*stages, store=None, limits=None, during=None, run=None, observers=(), bus=None):
    """Run the stages and return the events that a reader saw."""
    bus = bus or MemoryBus()
    runner = Runner(stages, bus, store or MemoryStore(), limits or Limits(), observers)
    await runner.start(run or a_run())
    ended = runner.ended("r")
    assert ended is not None
    if during:
        asyncio.get_running_loop().call_later(0.02, during, runner)
    events = []
    async with aclosing(bus.read("r")) as batches:
        async for frames in batches:
            events += [json.loads(frame.split(b"data: ")[1]) for frame in frames]
    await ended
    assert runner.count == 0
    return events


def last(events):
    terminal = [event for event in events if event["type"] in {"done", "error", "cancelled"}]
    assert len(terminal) == 1
    assert terminal[0] is events[-1]
    return events[-1]


async def test_a_run_goes_from_run_start_through_its_stages_to_done():
    store = MemoryStore()
    events = await ran(("work", stage_of(Start(), Token("a"), Token("b"), Complete())), store=store)
    assert [event["type"] for event in events] == ["run_start", "work_start", "token", "token", "work_complete", "done"]
    assert last(events)["content"]["stages"].keys() == {"work"}
    assert store.outcomes["r"].answer == "ab"
    assert [json.loads(frame.split(b"data: ")[1]) for frame in store.frames["r"]] == events
    assert store.outcomes["r"].status == "completed"


class Watching:
    """Notes what an observer is shown; ``fails``: and then fails."""

    def __init__(self, *, fails=False):
        self.shown = []
        self._fails = fails

    def begun(self, live):
        self._note("begun")

    def concluded(self, live, outcome):
        self._note(outcome.status)

    def _note(self, what):
        self.shown.append(what)
        if self._fails:
            raise RuntimeError(what)


async def test_who_looks_at_a_run_is_shown_it_once_and_changes_nothing_by_failing():
    observers, store = [Watching(fails=True), Watching()], MemoryStore()
    events = await ran(("work", stage_of(Start(), Token("a"), Complete())), store=store, observers=observers)
    assert last(events)["type"] == "done"
    assert store.outcomes["r"].status == "completed"
    assert [observer.shown for observer in observers] == [["begun", "completed"]] * 2


async def test_a_run_whose_end_fails_is_shown_all_the_same():
    class Broken(MemoryBus):
        async def frames(self, run_id):
            raise RuntimeError("no frames")

    watching = Watching()
    events = await ran(("work", stage_of(Start(), Complete())), observers=[watching], bus=Broken())
    assert last(events)["type"] == "error"
    assert watching.shown == ["begun", "error"]


async def test_tokens_that_come_together_are_told_stored_and_counted_one_by_one():
    store = MemoryStore()
    steps = (Start(), Tokens(["a", "b"]), Token("c"), Tokens(["d"]), Complete())
    events = await ran(("work", stage_of(*steps)), store=store)
    assert [event["content"] for event in events if event["type"] == "token"] == ["a", "b", "c", "d"]
    assert (store.outcomes["r"].answer, store.outcomes["r"].token_count) == ("abcd", 4)


async def test_the_same_time_is_in_the_event_the_log_and_the_stored_run():
    store = MemoryStore()
    with structlog.testing.capture_logs() as logs:
        events = await ran(("work", stage_of(Start(), lambda: asyncio.sleep(0.01), Complete())), store=store)
    elapsed = events[-2]["content"]["elapsed_ms"]
    assert elapsed >= 10
    assert [line["elapsed_ms"] for line in logs if line["event"] == "stage.complete"] == [elapsed]
    assert store.outcomes["r"].stages["work"].elapsed_ms == elapsed
    assert last(events)["content"]["stages"]["work"]["elapsed_ms"] == elapsed


async def test_the_time_in_line_for_a_thread_is_told_apart_from_the_work():
    threads, free = Threads(1), threading.Event()
    held = asyncio.create_task(threads.run(free.wait, 10))

    async def work():
        asyncio.get_running_loop().call_later(0.05, free.set)
        await threads.run(time.sleep, 0.02)

    try:
        events = await ran(
            ("work", stage_of(Start(), work, Complete())),
            ("idle", stage_of(*(event() for event in stage_events("idle")))),
        )
        await held
    finally:
        threads.close()
    waited, idle = (event["content"] for event in events if event["type"].endswith("_complete"))
    assert waited["queued_ms"] >= 45
    assert waited["elapsed_ms"] >= waited["queued_ms"] + 15
    assert idle["queued_ms"] == 0


async def test_tokens_are_counted_and_the_first_is_timed_by_the_runner():
    generation = stage_of(
        GenerationStart(GenerationStarted(model="m")),
        lambda: asyncio.sleep(0.01),
        Token("a"),
        Token("b"),
        GenerationComplete(GenerationCompleted(finish_reason="length")),
    )
    complete = (await ran(("generation", generation)))[-2]["content"]
    assert complete["token_count"] == 2
    assert 10 <= complete["first_token_ms"] <= complete["elapsed_ms"]
    assert complete["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("retrieval", "RETRIEVAL_ERROR"),
        ("reranking", "RERANKING_ERROR"),
        ("generation", "GENERATION_ERROR"),
        ("work", "STAGE_ERROR"),
    ],
)
async def test_an_exception_becomes_the_stages_error_and_shows_no_internals(name, code):
    start, _ = stage_events(name)
    error = last(await ran((name, stage_of(start(), ValueError("secret dsn")))))
    assert error["content"]["code"] == code
    assert error["content"]["stage"] == name
    assert "secret" not in error["content"]["message"]


async def test_a_run_error_says_its_own_message_and_whether_to_retry():
    error = last(await ran(("work", stage_of(Start(), GenerationFailed("Key refused.", retryable=False)))))
    assert error["content"] == {
        "message": "Key refused.",
        "code": "GENERATION_ERROR",
        "stage": "work",
        "retryable": False,
    }


@pytest.mark.parametrize("broken", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_not_even_an_exit_or_a_leaked_cancellation_escapes_a_stage(broken):
    assert last(await ran(("work", stage_of(Start(), broken))))["type"] == "error"


@pytest.mark.parametrize(
    "steps",
    [
        ("not an event",),
        (None,),
        (Start(), Done(Finished("r", "m", 1.0, {})), Complete()),
        (Start(),),
        (Complete(),),
        (Token("x"),),
        (Start(), Token("x" * 70_000), Complete()),
        (Start(), Token("\ud800"), Complete()),
        (Start(), Tokens([]), Complete()),
        (Start(), Tokens(["a", "b\0"]), Complete()),
        (Start(), Tokens(["a", "x" * 70_000]), Complete()),
        (Start(), Tokens(msgspec.json.decode(b'["a", 5]')), Complete()),
    ],
    ids=[
        "str",
        "none",
        "terminal",
        "no complete",
        "no start",
        "only a token",
        "too large",
        "surrogate",
        "no tokens",
        "nul in one",
        "one too large",
        "number",
    ],
)
async def test_a_stage_that_breaks_its_contract_ends_the_run_with_an_error(steps):
    error = last(await ran(("work", stage_of(*steps))))
    assert (error["type"], error["content"]["code"]) == ("error", "STAGE_ERROR")


async def test_a_stage_that_has_nothing_to_do_leaves_no_trace():
    store = MemoryStore()
    with structlog.testing.capture_logs() as logs:
        events = await ran(("idle", stage_of()), ("work", stage_of(Start(), Token("a"), Complete())), store=store)
    assert [event["type"] for event in events] == ["run_start", "work_start", "token", "work_complete", "done"]
    assert last(events)["content"]["stages"].keys() == {"work"}
    assert [line["stage"] for line in logs if line["event"] == "stage.complete"] == ["work"]
    assert store.outcomes["r"].stages.keys() == {"work"}


async def test_a_stage_that_yields_nothing_because_it_swallowed_a_stop_does_not_complete_the_run():
    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)

    assert last(await ran(("work", stage_of(deaf)), during=lambda runner: runner.stop("r")))["type"] == "cancelled"


async def test_what_was_said_before_an_error_is_stored_with_its_status():
    store = MemoryStore()
    await ran(("work", stage_of(Start(), Token("half"), ValueError())), store=store)
    assert (store.outcomes["r"].answer, store.outcomes["r"].status) == ("half", "error")


async def test_a_stop_ends_the_stage_at_once_and_keeps_the_answer_so_far():
    store = MemoryStore()
    with structlog.testing.capture_logs() as logs:
        begun = time.monotonic()
        stage = stage_of(Start(), Token("half"), forever)
        events = await ran(("work", stage), store=store, during=lambda runner: runner.stop("r"))
    assert last(events)["content"] == {"stage": "work", "status": "cancelled", "tokens_kept": 1}
    assert store.outcomes["r"].answer == "half"
    assert time.monotonic() - begun < 1
    assert "Stream cancelled by client" in [line["event"] for line in logs]


async def test_a_stage_that_ignores_its_cancellation_does_not_hold_the_run():
    async def stubborn():
        for _ in range(20):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue

    events = await ran(("work", stage_of(Start(), stubborn, Token("late"))), during=lambda runner: runner.stop("r"))
    assert last(events)["type"] == "cancelled"


async def test_silence_ends_a_run_with_an_idle_timeout():
    events = await ran(("work", stage_of(Start(), forever)), limits=Limits(idle_s=0.05))
    assert last(events)["content"]["code"] == "IDLE_TIMEOUT"


async def test_a_stage_may_have_an_idle_limit_of_its_own():
    limits = Limits(idle_s=30, stage_idle_s={"second": 0.05})
    second_start, _ = stage_events("second")
    quiet = ("work", stage_of(Start(), lambda: asyncio.sleep(0.1), Complete()))
    events = await ran(quiet, ("second", stage_of(second_start(), forever)), limits=limits)
    error = last(events)["content"]
    assert (error["code"], error["stage"]) == ("IDLE_TIMEOUT", "second")


async def test_a_stage_that_never_waits_leaves_the_loop_to_others():
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0)
            beats += 1

    beating = asyncio.create_task(beat())
    await ran(("work", stage_of(Start(), *[Token("x")] * 6400, Complete())))
    beating.cancel()
    assert beats >= 100


async def test_a_stage_that_never_ends_is_ended_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr("pipeline.runner.MAX_RUN_BYTES", 100_000)

    class Endless:
        async def run(self, run):
            yield Start()
            while True:
                yield Token("x" * 100)

    with structlog.testing.capture_logs() as logs:
        events = await ran(("work", Endless()))
    assert last(events)["content"]["code"] == "STAGE_ERROR"
    assert len(events) < 1000
    assert any("bytes of events" in str(line.get("reason")) for line in logs)


async def test_the_idle_limit_is_not_a_total_one():
    steps = [step for _ in range(8) for step in (Token("x"), lambda: asyncio.sleep(0.03))]
    events = await ran(("work", stage_of(Start(), *steps, Complete())), limits=Limits(idle_s=0.1))
    assert last(events)["type"] == "done"


async def test_the_total_limit_ends_a_run_that_goes_on_and_on():
    steps = [step for _ in range(100) for step in (Token("x"), lambda: asyncio.sleep(0.01))]
    events = await ran(("work", stage_of(Start(), *steps)), limits=Limits(total_s=0.1))
    assert last(events)["type"] == "error"
    assert len(events) < 60


async def test_a_model_that_does_not_begin_is_given_up():
    asked = GenerationStart(GenerationStarted(model="m"))
    events = await ran(("generation", stage_of(asked, forever)), limits=Limits(first_token_s=0.05))
    assert last(events)["content"]["code"] == "GENERATION_ERROR"


async def test_done_is_not_said_before_the_answer_is_stored(monkeypatch):
    monkeypatch.setattr("pipeline.runner.STORE_WAITS_S", (0, 0.01))
    store = MemoryStore(failures=[OSError("down"), OSError("down")])
    assert last(await ran(("work", stage_of(Start(), Complete())), store=store))["type"] == "done"
    assert store.outcomes["r"].status == "completed"


async def test_an_answer_that_cannot_be_stored_is_an_error_and_is_stored_as_one_once_that_is_possible(monkeypatch):
    monkeypatch.setattr("pipeline.runner.STORE_WAITS_S", (0, 0.01))
    monkeypatch.setattr("pipeline.runner.STORE_DEADLINE_S", 0.05)
    store = MemoryStore(failures=[OSError("down")] * 30)
    error = last(await ran(("work", stage_of(Start(), Token("all"), Complete())), store=store))
    assert error["content"]["code"] == "INTERNAL_ERROR"
    assert (store.outcomes["r"].status, store.outcomes["r"].answer) == ("error", "all")
    assert json.loads(store.frames["r"][-1].split(b"data: ")[1])["type"] == "error"


async def test_a_stop_ends_a_run_whose_answer_cannot_be_stored():
    store = MemoryStore(failures=[OSError("down")] * 2)
    events = await ran(
        ("work", stage_of(Start(), Token("all"), Complete())), store=store, during=lambda runner: runner.stop("r")
    )
    assert last(events)["type"] == "cancelled"
    assert (store.outcomes["r"].status, store.outcomes["r"].answer) == ("cancelled", "all")


async def test_an_answer_whose_run_was_deleted_is_never_called_done_and_not_tried_again():
    tried = []

    class Deleted(MemoryStore):
        async def finish(self, run, outcome, frames):
            tried.append(outcome.status)
            raise RunGone(run.id)

    error = last(await ran(("work", stage_of(Start(), Complete())), store=Deleted()))
    assert error["content"]["code"] == "INTERNAL_ERROR"
    assert tried == ["completed", "error"]


async def test_a_stop_while_a_whole_answer_is_being_stored_changes_nothing():
    class Slow(MemoryStore):
        async def finish(self, run, outcome, frames):
            await asyncio.sleep(0.05)
            await super().finish(run, outcome, frames)

    store = Slow()
    events = await ran(("work", stage_of(Start(), Complete())), store=store, during=lambda runner: runner.stop("r"))
    assert last(events)["type"] == "done"
    assert store.outcomes["r"].status == "completed"


async def test_a_reader_can_be_told_the_end_of_a_run_that_cannot_be_stored_yet(monkeypatch):
    monkeypatch.setattr("pipeline.runner.STORE_WAITS_S", (0, 0.05))
    bus = MemoryBus(linger_s=0)
    store = MemoryStore(failures=[OSError("down")] * 3)
    runner = Runner([("work", stage_of(Start(), ValueError()))], bus, store, Limits())
    await runner.start(a_run())
    ended, told = runner.ended("r"), runner.told("r")
    assert ended is not None
    assert told is not None
    assert (await told).status == "error"
    assert not ended.done()
    async with aclosing(bus.read("r")) as batches:
        assert "error" in str([frames async for frames in batches])
    assert (await ended).status == "error"
    assert store.outcomes["r"].status == "error"


async def test_an_error_is_told_before_it_is_stored_and_done_only_after():
    order = []

    class Slow(MemoryStore):
        async def finish(self, run, outcome, frames):
            await asyncio.sleep(0.05)
            order.append("stored")

    for step, expected in ((ValueError(), ["told", "stored"]), (Complete(), ["stored", "told"])):
        order.clear()
        bus = MemoryBus()
        runner = Runner([("work", stage_of(Start(), step))], bus, Slow(), Limits())
        await runner.start(a_run())
        ended = runner.ended("r")
        assert ended is not None
        async with aclosing(bus.read("r")) as batches:
            async for _ in batches:
                pass
        order.append("told")
        await ended
        assert order == expected


@pytest.mark.parametrize(
    "broken",
    [Token(msgspec.json.decode(b"5")), GenerationFailed("x" * 100_000), GenerationFailed("\ud800"), Token("a\0b")],
    ids=["number", "long message", "surrogate", "nul"],
)
async def test_nothing_that_a_stage_says_keeps_its_run_open(broken):
    assert last(await ran(("work", stage_of(Start(), broken, Complete()))))["type"] == "error"


async def test_a_store_that_leaks_a_cancellation_does_not_keep_the_run_open():
    class Leaky(MemoryStore):
        async def finish(self, run, outcome, frames):
            raise asyncio.CancelledError

    assert last(await ran(("work", stage_of(Start(), ValueError())), store=Leaky()))["type"] == "error"
    assert last(await ran(("work", stage_of(Start(), Complete())), store=Leaky()))["type"] == "error"


async def test_no_stage_begins_behind_a_stop_that_another_has_swallowed():
    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(5)

    began = []

    class Next:
        async def run(self, run):
            began.append(True)
            yield Start()

    events = await ran(("work", stage_of(Start(), deaf)), ("next", Next()), during=lambda runner: runner.stop("r"))
    assert last(events)["type"] == "cancelled"
    assert began == []


async def test_a_run_that_begins_behind_the_shutdown_is_ended_too():
    bus = MemoryBus()
    runner = Runner([("work", stage_of(Start(), forever))], bus, MemoryStore(), Limits())
    runner.stop_all(Stop.SHUTDOWN)
    await runner.start(a_run())
    ended = runner.ended("r")
    assert ended is not None
    assert "SERVER_RESTART" in str(await asyncio.wait_for(ended, 5))


async def test_a_run_is_under_way_from_before_its_question_is_stored():
    class Slow(MemoryStore):
        async def begin(self, run):
            seen.append(runner.ids)
            await super().begin(run)

    seen: list[list[str]] = []
    runner = Runner([("work", stage_of(Start(), Complete()))], MemoryBus(), Slow(), Limits())
    await runner.start(a_run())
    assert seen == [["r"]]
    await runner.close()


async def test_a_shutdown_tells_every_reader():
    events = await ran(("work", stage_of(Start(), forever)), during=lambda runner: runner.stop_all(Stop.SHUTDOWN))
    assert last(events)["content"]["code"] == "SERVER_RESTART"


async def test_the_next_question_of_a_session_knows_the_earlier_ones():
    store = MemoryStore()
    seen = []

    class Look:
        async def run(self, run):
            seen.extend(run.history)
            yield Start()
            yield Token("A")
            yield Complete()

    await ran(("work", Look()), store=store)
    await ran(("work", Look()), store=store)
    assert seen == [Message("user", "Why?"), Message("assistant", "A")]


async def test_a_stage_is_closed_when_its_run_is_stopped():
    closed = []

    class Closes:
        async def run(self, run):
            try:
                yield Start()
                await forever()
            finally:
                closed.append(True)

    await ran(("work", Closes()), during=lambda runner: runner.stop("r"))
    assert closed == [True]


def test_an_event_of_a_plugin_is_an_event():
    assert issubclass(Start, Event)
