"""The LLM's far end fails in every way that HTTP and SSE allow: each is one terminal event, told in plain words."""

import asyncio
import json
import socket
import ssl
import statistics
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from pipeline.bus import MemoryBus
from pipeline.fakes import MemoryStore, passage
from pipeline.host import Host, Options
from pipeline.live import Limits
from pipeline.ports import Run
from pipeline.runner import Runner
from pipeline.threads import Threads
from plugins.chat_completions import CONNECT_TIMEOUT_S
from plugins.generate import Generate
from plugins.litellm_llm import LiteLLM
from tests.conftest import answer_of, ask, first
from tests.faulty_llm import BIG, ODD_TEXT, SECRET, TOKENS

CLOSED_WITHIN_S = 2
"""Milliseconds in truth; the rest is for a machine that does other things."""
INTERNALS = ("litellm", "openai", "error", "exception", "traceback", "http", "none", SECRET)


class Seen:
    """A question, what came of it, and the calls that the far end got."""

    def __init__(self, server, llm, mode):
        marker = uuid.uuid4().hex
        asked = time.monotonic()
        self.events = ask(server, f"llm:{mode} {marker}")
        self.took_s = time.monotonic() - asked
        self.calls = llm.calls_about(marker)
        self.last = self.events[-1]["content"]
        self.kind = self.events[-1]["type"]
        self.stored = httpx.get(f"{server.url}/runs/{first(self.events, 'run_start')['run_id']}").json()

    @property
    def tokens(self):
        return [event["content"] for event in self.events if event["type"] == "token"]

    @property
    def waits_s(self):
        return [later.came_at - earlier.came_at for earlier, later in pairwise(self.calls)]


@pytest.fixture(scope="module")
def watch(either_server, llm):
    return lambda mode: Seen(either_server, llm, mode)


@pytest.fixture(scope="module")
def watch_all(watch):
    """Return a function that asks several questions at once."""

    def ask_all(*modes):
        with ThreadPoolExecutor(len(modes)) as threads:
            return dict(zip(modes, threads.map(watch, modes), strict=True))

    return ask_all


def assert_closed(call):
    deadline = time.monotonic() + CLOSED_WITHIN_S
    while call.closed_at is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert call.closed_at is not None


def assert_plain_words(message):
    assert not [word for word in INTERNALS if word in message.lower()]
    assert message.endswith(".")


def assert_failed(seen, code, *, retryable=True):
    assert seen.kind == "error"
    assert (seen.last["code"], seen.last["stage"], seen.last["retryable"]) == (code, "generation", retryable)
    assert_plain_words(seen.last["message"])
    assert SECRET not in json.dumps(seen.events)
    assert (seen.stored["status"], seen.stored["answer"]) == ("error", "".join(seen.tokens))


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("truncated", "UPSTREAM_TRUNCATED"),
        ("cut", "UPSTREAM_TRUNCATED"),
        ("reset", "UPSTREAM_TRUNCATED"),
        ("oops", "GENERATION_ERROR"),
        ("malformed", "GENERATION_ERROR"),
        ("badbytes", "GENERATION_ERROR"),
    ],
)
def test_an_answer_that_breaks_off_keeps_what_was_said_and_is_not_asked_for_again(watch, mode, code):
    seen = watch(mode)
    assert_failed(seen, code)
    assert seen.tokens == TOKENS[:3]
    assert len(seen.calls) == 1
    assert_closed(seen.calls[0])


@pytest.mark.parametrize(
    ("mode", "reason", "tokens"),
    [
        ("filtered", "content_filter", TOKENS[:3]),
        ("length", "length", ["Hello"]),
        ("toolcall", "tool_calls", []),
        ("empty", "stop", []),
    ],
)
def test_the_models_reason_for_its_end_reaches_the_client(watch, mode, reason, tokens):
    seen = watch(mode)
    assert seen.kind == "done"
    assert seen.tokens == tokens
    assert first(seen.events, "generation_complete")["finish_reason"] == reason
    assert (seen.stored["status"], seen.stored["finish_reason"]) == ("completed", reason)
    assert_closed(seen.calls[0])


def test_a_far_end_that_may_recover_is_asked_three_times(watch_all):
    passing = [f"status{status}" for status in (408, 409, 429, 500, 502, 503, 504, 529)]
    for seen in watch_all(*passing, "unwilling").values():
        assert_failed(seen, "GENERATION_ERROR")
        assert len(seen.calls) == 3
        assert min(seen.waits_s) >= 0.25
        assert seen.took_s < 10


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_far_end_that_refuses_for_good_is_asked_once(watch, status):
    seen = watch(f"status{status}")
    assert_failed(seen, "GENERATION_ERROR", retryable=False)
    assert len(seen.calls) == 1


@pytest.mark.parametrize("mode", ["flaky2", "dropped2"])
def test_a_far_end_that_recovers_gives_one_whole_answer(watch, either_server, mode):
    seen = watch(mode)
    assert (seen.kind, seen.tokens, len(seen.calls)) == ("done", TOKENS, 3)
    retries = [line for line in either_server.log_lines() if line["event"] == "llm.retry"][-2:]
    assert [line["attempt"] for line in retries] == [2, 3]
    assert {line["status"] for line in retries} == {503 if mode == "flaky2" else None}
    assert all(0.25 <= line["wait_s"] <= 1 for line in retries)


def test_a_stream_that_ends_before_its_first_token_is_asked_for_again(watch):
    seen = watch("nothing")
    assert_failed(seen, "UPSTREAM_TRUNCATED")
    assert len(seen.calls) == 3


def test_the_far_end_says_how_long_to_wait(watch_all):
    seen = watch_all("status429ra1", "status429radate", "status429rajunk", "status503ra5", "status429ra3600")
    for one in seen.values():
        assert_failed(one, "GENERATION_ERROR")
        assert one.took_s < 10.5
    assert all(1 <= wait_s < 2 for wait_s in seen["status429ra1"].waits_s)
    assert 0.9 <= seen["status429radate"].waits_s[0] < 2.5  # dates have whole seconds
    assert [len(one.calls) for one in seen.values()] == [3, 3, 3, 2, 1]
    assert max(seen["status429rajunk"].waits_s) < 2
    assert seen["status429ra3600"].took_s < 1


def test_a_run_that_waits_for_the_far_end_can_be_stopped_at_once(either_server, llm):
    marker = uuid.uuid4().hex
    body = {"message": f"llm:status429ra5 {marker}"}
    with httpx.stream("POST", f"{either_server.url}/chat", json=body, timeout=30) as response:
        lines = response.iter_lines()
        run_id = next(json.loads(line[6:]) for line in lines if '"run_start"' in line)["content"]["run_id"]
        next(line for line in lines if '"generation_start"' in line)
        deadline = time.monotonic() + 5
        while not llm.calls_about(marker) and time.monotonic() < deadline:
            time.sleep(0.005)
        asked = time.monotonic()
        httpx.post(f"{either_server.url}/runs/{run_id}/cancel")
        assert any('"type":"cancelled"' in line for line in lines)
    assert time.monotonic() - asked < 2
    assert len(llm.calls_about(marker)) == 1


def test_a_redirect_is_not_followed(watch, llm):
    seen = watch("redirect")
    assert_failed(seen, "GENERATION_ERROR", retryable=False)
    assert len(seen.calls) == 1
    assert b"authorization" in seen.calls[0].head.lower()
    assert llm.strays == []


def test_odd_characters_come_out_as_they_were_on_one_line_each(either_server):
    with httpx.stream("POST", f"{either_server.url}/chat", json={"message": "llm:odd"}, timeout=30) as response:
        lines = [line for line in response.iter_lines() if line and not line.startswith(":")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if not line.startswith("id: ")]
    assert len(events) * 2 == len(lines)
    assert answer_of(events) == ODD_TEXT
    stored = httpx.get(f"{either_server.url}/runs/{first(events, 'run_start')['run_id']}").json()
    assert (stored["status"], stored["answer"]) == ("completed", ODD_TEXT)


def test_a_huge_piece_arrives_in_frames_of_a_bearable_size_and_delays_nobody(either_server):
    arrived = []

    def read_slowly():
        with httpx.stream("POST", f"{either_server.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
            for line in response.iter_lines():
                if '"type":"token"' in line:
                    arrived.append(time.monotonic())
                if len(arrived) > 70:
                    return

    other = threading.Thread(target=read_slowly)
    other.start()
    with httpx.stream("POST", f"{either_server.url}/chat", json={"message": "llm:big"}, timeout=30) as response:
        frames = response.read().split(b"\n\n")
    other.join()
    assert max(map(len, frames)) <= 64 * 1024
    events = [json.loads(frame.split(b"data: ")[1]) for frame in frames if b"data: " in frame]
    assert answer_of(events) == BIG
    assert events[-1]["type"] == "done"
    assert max(later - earlier for earlier, later in pairwise(arrived)) < 1


def test_no_word_of_the_far_ends_errors_is_in_the_log(either_server, watch_all):
    watch_all("status500", "status400", "oops", "malformed")
    log = either_server.log_path.read_text()
    assert "run.failed" in log
    assert SECRET not in log
    assert "Traceback" not in log


def within_this_process(test):
    """Run a test on both loops; what pydantic says of LiteLLM's types would else be an error of the far end."""
    return pytest.mark.both_loops(pytest.mark.filterwarnings("ignore:Item .* on TypedDict")(test))


class Ended:
    """A run within this process: its events, its outcome, and when it ended."""

    def __init__(self, events, outcome, took_s):
        self.events, self.outcome, self.took_s = events, outcome, took_s
        self.last = events[-1]["content"]


async def ran(client, url, question, limits):
    threads = Threads(2)
    options = Options(data_dir=Path("unused"), llm_model="openai/fake", llm_api_base=url, llm_client=client)
    host = Host(options, threads, {"llm": lambda host: llm})
    llm = LiteLLM(host)
    bus, store = MemoryBus(), MemoryStore()
    runner = Runner([("generation", Generate(host))], bus, store, limits)
    begun = time.monotonic()
    await runner.start(Run(id="r", session_id="s", message_id="m", question=question, passages=[passage(1)]))
    ended = runner.ended("r")
    async with aclosing(bus.read("r")) as batches:
        events = [json.loads(frame.split(b"data: ")[1]) async for frames in batches for frame in frames]
    took_s = time.monotonic() - begun
    assert ended is not None
    outcome = await ended
    await llm.close()
    threads.close()
    assert [event["type"] for event in events if event["type"] in {"done", "error", "cancelled"}] == ["error"]
    return Ended(events, outcome, took_s)


@pytest.fixture(params=["auto", "litellm"])
async def run_alone(request, monkeypatch, llm):
    """Return a function that asks a far end within this process, by the own client and by LiteLLM's SDK.

    LiteLLM is loaded and has been used once, as in a server that is ready.
    """
    run = partial(ran, request.param)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for mode in ("status400", "truncated", "truncated"):  # what only the first answers cost is not the test's matter
        await run(llm.url, f"llm:{mode}", Limits())
    import litellm

    yield run
    if litellm.aclient_session is not None:
        await litellm.aclient_session.aclose()
        litellm.aclient_session = None


@contextmanager
def far_end(*, tls=None, answer=b""):
    """Listen on a port of this machine, answer whoever calls, and yield the port and what was received."""
    received = []

    def serve(listener):
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            try:
                with tls.wrap_socket(caller, server_side=True) if tls else caller as connection:
                    received.append(connection.recv(65_536))
                    connection.sendall(answer)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@contextmanager
def black_hole():
    """Yield a port whose queue of connections is full: the kernel lets further ones wait for an answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


@within_this_process
async def test_a_far_end_that_cannot_be_reached_is_told_in_time(run_alone):
    distrusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    distrusted.load_cert_chain(Path(__file__).with_name("untrusted.pem"))
    with (
        far_end(tls=distrusted) as (impostor, received),
        far_end(answer=b"What?\r\n") as (plain, _),
        black_hole() as hole,
    ):
        urls = {
            "refused": "http://127.0.0.1:1/v1",
            "unknown": "http://stagecast.invalid/v1",
            "distrusted": f"https://127.0.0.1:{impostor}/v1",
            "no TLS": f"https://127.0.0.1:{plain}/v1",
            "silence": f"http://127.0.0.1:{hole}/v1",
        }
        runs = await asyncio.gather(*(run_alone(url, "aripiprazole", Limits()) for url in urls.values()))
    for kind, run in zip(urls, runs, strict=True):
        assert run.last["code"] == "GENERATION_ERROR"
        assert_plain_words(run.last["message"])
        assert run.outcome.status == "error"
        assert run.took_s < (10.5 if kind == "silence" else CONNECT_TIMEOUT_S + 0.2), kind
    assert [run.last["retryable"] for run in runs] == [True, True, False, False, True]
    assert "secured" in runs[2].last["message"]
    assert received == []


@within_this_process
async def test_limits_count_content_and_not_bytes(run_alone, llm):
    patience = 1.0
    beginning, going_on = Limits(first_token_s=patience), Limits(idle_s=patience)
    cases = [
        ("headerless", beginning, "GENERATION_ERROR", 0),
        ("silent", beginning, "GENERATION_ERROR", 0),
        ("pings", beginning, "GENERATION_ERROR", 0),
        ("drip", going_on, "IDLE_TIMEOUT", 1),
        ("sayping", going_on, "IDLE_TIMEOUT", 1),
        ("stall", going_on, "IDLE_TIMEOUT", 3),
        ("slow", Limits(total_s=patience), "IDLE_TIMEOUT", None),
    ]
    markers = [f"llm:{mode} {uuid.uuid4().hex}" for mode, *_ in cases]
    runs = await asyncio.gather(
        *(run_alone(llm.url, marker, limits) for marker, (_, limits, *_) in zip(markers, cases, strict=True))
    )
    for (mode, _, code, tokens), run, marker in zip(cases, runs, markers, strict=True):
        said = [event["content"] for event in run.events if event["type"] == "token"]
        assert (run.last["code"], run.last["retryable"]) == (code, True), mode
        assert len(said) == tokens if tokens is not None else said
        assert (run.outcome.status, run.outcome.answer) == ("error", "".join(said))
        (call,) = llm.calls_about(marker)
        await asyncio.to_thread(assert_closed, call)
    assert all(patience <= run.took_s < patience + 1 for run in runs)
    assert statistics.median(run.took_s for run in runs) < patience + 0.2
