"""Behind nginx, with the configuration in ``deploy``."""

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

DEPLOYED = (Path(__file__).parents[2] / "deploy" / "nginx.conf").read_text()
ADDRESS = "stagecast:8000"
"""Where nginx finds the server when both are containers."""
SILENCE_S = 70
"""Longer than the 60 s after which nginx, left alone, gives a stream up."""

ALONE = f"location / {{ proxy_pass http://{ADDRESS}; }}"
CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .;
    {conf}
}}
"""


def site(location):
    """Return a file of nginx's folder conf.d that has this location, at the port of the deployed one."""
    return f"server {{ listen 8080; {location} }}"


class Proxy:
    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"


@contextmanager
def nginx(folder, conf, server):
    """Run nginx with a file of its folder conf.d before the server, at a port of this machine."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or pytest.skip("nginx is not installed")
    port = free_port()
    conf = conf.replace("listen 8080", f"listen 127.0.0.1:{port}").replace(ADDRESS, server.url.removeprefix("http://"))
    (folder / "nginx.conf").write_text(CONFIGURATION.format(conf=conf))
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


async def test_tokens_come_one_by_one_through_nginx_as_it_is_deployed(tmp_path, patient):
    with nginx(tmp_path, DEPLOYED, patient) as proxy:
        stream, tokens, moments, pause_s = await arrivals(proxy)
    print(f"as deployed: {tokens} tokens at {moments} moments, the longest pause {pause_s * 1000:.0f} ms")
    assert stream.last == "done"
    assert moments > tokens * 0.9


async def test_nginx_left_alone_lets_tokens_through_because_the_server_asks_it_to(tmp_path, patient):
    with nginx(tmp_path, site(ALONE), patient) as proxy:
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
    """What the README warns of; with the deployed lines compression does no harm."""
    zipped = "gzip on; gzip_types text/event-stream;"
    buffering = ALONE.replace("; }", "; proxy_ignore_headers X-Accel-Buffering; }")
    with nginx(tmp_path, zipped + DEPLOYED, patient) as proxy:
        unhindered = await compressed_moments(proxy)
    with nginx(tmp_path, zipped + site(buffering), patient) as proxy:
        held_back = await compressed_moments(proxy)
    print(f"compressed, 200 tokens: at {unhindered} moments as deployed, at {held_back} with buffering")
    assert unhindered > 180
    assert held_back < 40


async def test_a_client_that_leaves_nginx_stops_the_run_behind_it(tmp_path, patient, llm):
    with nginx(tmp_path, DEPLOYED, patient) as proxy:
        async with await recorder.ask(proxy, "llm:slow leaving-nginx") as stream:
            await stream.until(lambda event: event["content"] == " w2")
        left = time.monotonic()
        [call] = llm.calls_about("leaving-nginx")

        async def closed():
            return call.closed_at

        await until(closed)
    print(f"through nginx: the LLM's connection was closed {(call.closed_at - left) * 1000:.0f} ms after leaving")


def before_both(*servers):
    """Return the configuration for several servers, as its comment says."""
    [upstream] = re.findall(r"^#   (upstream stagecast .*)$", DEPLOYED, re.MULTILINE)
    for written, server in zip(("10.0.0.1:8000", "10.0.0.2:8000"), servers, strict=True):
        upstream = upstream.replace(written, server.url.removeprefix("http://"))
    return upstream + DEPLOYED.replace(f"set $stagecast {ADDRESS}", "set $stagecast stagecast")


async def test_before_several_servers_a_callers_requests_go_where_its_runs_are(
    tmp_path, start_troubled, sample_database, server
):
    keys = [f"a-long-secret-{number}" for number in range(16)]
    both = [start_troubled(database_url=sample_database, api_keys=",".join(keys)) for _ in range(2)]
    with nginx(tmp_path, before_both(*both), server) as proxy:
        for shown in ({"authorization": f"Bearer {key}"} for key in keys):
            async with await recorder.ask(proxy, "aripiprazole llm:slow", shown) as stream:
                await stream.until("run_start")
                async with await recorder.resume(proxy, stream.run_id, 1, shown) as again:
                    assert again.status == 200
                path = f"/runs/{stream.run_id}/cancel"
                status, _, run = await recorder.fetch(proxy, "POST", path, headers=shown)
                assert (status, run["status"]) == (200, "cancelled")
    stopped = [await runs_stopped(server, shown) for server in both]
    assert sum(stopped) == len(keys)
    assert min(stopped) > 0


async def runs_stopped(server, shown):
    _, _, metrics = await recorder.fetch(server, "GET", "/metrics", headers=shown)
    [count] = re.findall(rb'^stagecast_runs_total\{outcome="cancelled"\} (\S+)$', metrics, re.MULTILINE)
    return float(count)


@pytest.mark.timeout(150)
async def test_a_stream_that_is_silent_for_longer_than_nginx_waits_survives(tmp_path, patient):
    """The heartbeats keep it, so that not even nginx's own 60 s matter."""
    with nginx(tmp_path, site(ALONE), patient) as proxy:
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
