"""The comparison of streams: that it counts right, and that all of it runs; never how fast anything is."""

import asyncio
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time

import httpx
import pytest

from tests.bench import figures, load, metering
from tests.bench.contenders import ROOT, Upstream
from tests.bench.load import Plan, Script, Target
from tests.bench.servers.frames import done_frame, token_frame
from tests.bench.upstream import HEAD, http_chunk

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's clocks of other processes"),
    pytest.mark.timeout(300),
]
END = b"0\r\n\r\n"


@pytest.fixture(scope="module")
def upstream():
    started = Upstream()
    yield started
    started.stop()


def asked(script, **more):
    return {"stream": True, "messages": [{"role": "user", "content": f"about x {script}"}], **more}


def test_the_upstream_speaks_the_openai_protocol(upstream):
    body = asked("bench:3x0", stream_options={"include_usage": True})
    lines = httpx.post(f"{upstream.url}/chat/completions", json=body).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    stamps = [int(chunk["choices"][0]["delta"]["content"].removeprefix("@")) for chunk in chunks[1:4]]
    assert sorted(stamps) == stamps
    assert chunks[4]["choices"][0]["finish_reason"] == "stop"
    assert chunks[5]["choices"] == []
    assert chunks[5]["usage"]["completion_tokens"] == 3
    assert len(chunks) == 6


def test_the_upstream_keeps_the_pace_that_a_question_asks_for(upstream):
    with httpx.Client() as client:  # making one takes long
        begun = time.monotonic_ns()
        response = client.post(f"{upstream.url}/chat/completions", json=asked("bench:9x5 bench:3x30+200"))
    lines = response.text.split("\n\n")
    written_ms = [(int(line.rpartition("@")[2][:18]) - begun) / 1e6 for line in lines if "@" in line]
    assert len(written_ms) == 3
    assert all(at > due - 2 for at, due in zip(written_ms, (200, 230, 260), strict=True))


def test_the_upstream_counts_answers_that_are_left(upstream):
    before = upstream.stats()
    with httpx.stream("POST", f"{upstream.url}/chat/completions", json=asked("bench:1000x20")) as response:
        pieces = response.iter_raw()
        next(pieces)
        assert upstream.stats()["open"] == before["open"] + 1
    assert upstream.falls_silent()
    assert upstream.stats()["aborted"] == before["aborted"] + 1


def test_an_upstream_without_a_script_says_what_it_wants(upstream):
    refusal = httpx.post(f"{upstream.url}/chat/completions", json=asked("no script"))
    assert refusal.status_code == 400
    assert "bench:" in refusal.text


def stamped(age_ms=0):
    return b'"@%018d"' % (time.monotonic_ns() - age_ms * 1_000_000)


def token(age_ms=0):
    return http_chunk(token_frame(stamped(age_ms)))


def done():
    return http_chunk(done_frame())


@pytest.fixture
def answering():
    """Return a function that starts a server which answers every request with these bytes, as a target of loads."""
    started = []

    def start(make_answer):
        class Answering(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.recv(65_536)
                self.request.sendall(make_answer())

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        started.append(server)
        return Target(url=f"http://127.0.0.1:{server.server_address[1]}", pid=os.getpid())

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def loaded(target, tokens):
    return load.run(target, Plan(script=Script(tokens, 0), streams=2, deadline_s=5))


def test_streams_with_all_their_tokens_are_whole(answering):
    outcome = loaded(answering(lambda: HEAD + token() + token() + done() + END), tokens=2)
    assert (outcome.whole, outcome.tokens, outcome.problems) == (2, 4, [])


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (lambda: HEAD + token() + done() + END, 2),  # one is missing
        (lambda: HEAD + token() + token() + END, 4),  # no last event
        (lambda: HEAD + token() + token() + done(), 4),  # no end
        (lambda: HEAD + http_chunk(token_frame(stamped()[:-1] + stamped()[1:])) + done() + END, 0),  # two in one frame
    ],
)
def test_other_streams_are_not_whole(answering, answer, counted):
    outcome = loaded(answering(answer), tokens=2)
    assert (outcome.whole, outcome.tokens) == (0, counted)
    assert len(outcome.problems) == 2


def test_a_token_is_as_late_as_its_stamp_is_old(answering):
    outcome = loaded(answering(lambda: HEAD + token(age_ms=500) + token(age_ms=300) + done() + END), tokens=2)
    first, second = sorted(outcome.late)[::2]
    assert 300e6 <= first < 500e6 <= second


async def test_tokens_are_read_whatever_pieces_they_come_in():
    plan = Plan(script=Script(2, 0), streams=1)
    one_stream = load.Load(Target(url="http://127.0.0.1:1", pid=os.getpid()), plan)
    here, there = socket.socketpair()
    _, stream = await asyncio.get_running_loop().create_connection(lambda: load.Stream(one_stream), sock=here)
    answer = HEAD + token() + token() + done() + END
    for place in range(len(answer)):
        assert not stream.ended
        stream.data_received(answer[place : place + 1])
    assert stream.ended
    assert stream.tokens == 2
    there.close()
    await asyncio.sleep(0)  # lets the transport close its end


def test_a_refusal_is_told(answering):
    refusal = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nfull"
    outcome = loaded(answering(lambda: refusal), tokens=2)
    assert [problem.endswith("full") for problem in outcome.problems] == [True, True]


def test_the_cpu_time_of_a_process_is_what_it_says_itself():
    code = "import time\nsum(range(5_000_000))\nprint(time.process_time_ns(), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        meter = metering.CpuMeter(process.pid)
        assert process.stdout
        said = int(process.stdout.readline())
        assert said <= metering.cpu_ns(process.pid) < said + 50e6
        assert meter.server_ns() <= metering.cpu_ns(process.pid)
        process.communicate("\n")


def test_figures_replace_those_between_their_markers():
    before = "a\n<!-- figures:streams -->\nold\n<!-- /figures -->\nb\n<!-- figures:x -->\nkept\n<!-- /figures -->\n"
    after = figures.written_between(before, "streams", "new \\1")
    assert after == before.replace("old", "new \\1")
    assert figures.written_between(after, "streams", "new \\1") == after
    with pytest.raises(figures.NoMarkers, match="figures:searches"):
        figures.written_between(before, "searches", "new")


def test_the_quick_form_measures_every_server_and_writes_its_figures(tmp_path):
    result_path, readme = tmp_path / "result.json", tmp_path / "README.md"
    readme.write_text("<!-- figures:streams -->\n<!-- /figures -->\n")
    names = ["stagecast", "no_asgi", "asgi_raw"]
    command = [sys.executable, "-m", "tests.bench.streams", "--quick", "--only", ",".join(names)]
    command += ["--result", result_path, "--readme", readme]
    finished = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = json.loads(result_path.read_text())
    for part in ("unpaced", "paced"):
        assert set(result[part]["servers"]) == set(names)
        assert all(cost > 0 for server in result[part]["servers"].values() for cost in server["us_per_token"])
    assert result["unpaced"]["servers"]["asgi_raw"]["multiple"] == {"median": 1, "min": 1, "max": 1}
    [climbed] = result["ladder"]["spread_s"].values()
    assert set(climbed) == {"rig", *names}
    assert all(reached["points"][0]["whole"] == 2 for reached in climbed.values())
    # Some are differences of measured times, which noise may turn round.
    assert all(isinstance(ms, int | float) for ms in result["run"]["servers"]["stagecast"].values())
    assert result["idle"]["extractive"]["imports_s"] > 0
    assert readme.read_text().count("asyncio protocol on uvloop") == 1
