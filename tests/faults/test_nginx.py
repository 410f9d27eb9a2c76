"""Behind nginx, with the configuration that the README gives."""

import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.faults import recorder
from tests.faults.postgres import until

README = Path(__file__).parents[2] / "README.md"
SILENCE_S = 70
"""Longer than the 60 s after which nginx, left alone, gives a stream up."""

ALONE = "location / { proxy_pass http://127.0.0.1:8000; }"
CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


class Proxy:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"


def recommended():
    """Return what the README says that is to be put into nginx's configuration."""
    [block] = re.findall(r"```nginx\n(.*?)```", README.read_text(), re.DOTALL)
    return block


@contextmanager
def nginx(folder, location, server):
    """Run nginx before the server."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or pytest.skip("nginx is not installed")
    port = free_port()
    location = location.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    (folder / "nginx.conf").write_text(CONFIGURATION.format(port=port, location=location))
    process = subprocess.Popen([program, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"])
    try:
        deadline = time.monotonic() + 10
        while not (folder / "nginx.pid").exists() or not (folder / "nginx.pid").read_text():
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Proxy(port)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def patient(start_troubled, sample_database, server):
    return start_troubled(database_url=sample_database, idle_timeout_s=120)


async def arrivals(proxy):
    """Return the tokens of an answer of 200, 20 ms apart, and at how many moments they came."""
    stream = await recorder.whole(proxy, "aripiprazole llm:slow")
    times = [at for at, event in zip(stream.came_at, stream.events, strict=True) if event["type"] == "token"]
    return stream, len(times), len(set(times)), max(b - a for a, b in pairwise(times))


async def test_tokens_come_one_by_one_through_nginx_as_the_readme_sets_it_up(tmp_path, patient):
    with nginx(tmp_path, recommended(), patient) as proxy:
        stream, tokens, moments, pause_s = await arrivals(proxy)
    print(f"as the README has it: {tokens} tokens at {moments} moments, the longest pause {pause_s * 1000:.0f} ms")
    assert stream.last == "done"
    assert moments > tokens * 0.9


async def test_nginx_left_alone_lets_tokens_through_because_the_server_asks_it_to(tmp_path, patient):
    with nginx(tmp_path, ALONE, patient) as proxy:
        stream, tokens, moments, _ = await arrivals(proxy)
    assert stream.headers.get("x-accel-buffering") is None, "nginx keeps the header for itself"
    assert moments > tokens * 0.9


async def compressed_moments(proxy):
    """Ask for an answer of 200 tokens, compressed, and return at how many moments something came, and its length."""
    body = {"message": "aripiprazole llm:slow"}
    async with await recorder.send_request(
        proxy, "POST", "/chat", body, {"accept-encoding": "gzip", "connection": "close"}
    ) as stream:
        await stream.read_head()
        assert stream.headers.get("content-encoding") == "gzip"
        return await stream.read_raw()


async def test_nginx_that_buffers_and_compresses_in_spite_of_the_server_holds_tokens_back(tmp_path, patient):
    """What the README warns of; with the README's own lines compression does no harm."""
    zipped = "gzip on; gzip_types text/event-stream;"
    buffering = "location / { proxy_pass http://127.0.0.1:8000; proxy_ignore_headers X-Accel-Buffering; }"
    with nginx(tmp_path, zipped + recommended(), patient) as proxy:
        unhindered = await compressed_moments(proxy)
    with nginx(tmp_path, zipped + buffering, patient) as proxy:
        held_back = await compressed_moments(proxy)
    print(f"compressed, 200 tokens: at {unhindered} moments as the README has it, at {held_back} with buffering")
    assert unhindered > 180
    assert held_back < 40


async def test_a_client_that_leaves_nginx_stops_the_run_behind_it(tmp_path, patient, llm):
    with nginx(tmp_path, recommended(), patient) as proxy:
        async with await recorder.ask(proxy, "llm:slow leaving-nginx") as stream:
            await stream.until(lambda event: event["content"] == " w2")
        left = time.monotonic()
        [call] = llm.calls_about("leaving-nginx")

        async def closed():
            return call.closed_at

        await until(closed)
    print(f"through nginx: the LLM's connection was closed {(call.closed_at - left) * 1000:.0f} ms after leaving")


@pytest.mark.timeout(150)
async def test_a_stream_that_is_silent_for_longer_than_nginx_waits_survives(tmp_path, patient):
    """The heartbeats keep it, so that not even nginx's own 60 s matter."""
    with nginx(tmp_path, ALONE, patient) as proxy:
        async with await recorder.ask(proxy, "aripiprazole llm:silent") as stream:
            begun = time.monotonic()
            await stream.until("generation_start")
            with pytest.raises(TimeoutError):
                await stream.until("error", timeout_s=SILENCE_S)
            assert time.monotonic() - begun >= SILENCE_S
            assert stream.comments >= SILENCE_S / 10 - 1
            await recorder.cancel(proxy, stream.run_id)
            await stream.rest()
            assert stream.last == "cancelled"
