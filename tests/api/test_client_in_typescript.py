"""The page's client, in Node: all events, once and in order, whatever the connection does; leaving stops the run."""

import json
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.faults.proxy import FaultProxy
from tests.faulty_llm import TOKENS

UI = Path(__file__).parents[2] / "ui"
SCRIPT = Path(__file__).with_name("client_of_the_page.mjs")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Return the path of the client as JavaScript."""
    bundler = UI / "node_modules/.bin/rolldown"
    if not shutil.which("node") or not bundler.exists():
        pytest.skip("there is no Node on this machine, or the page's packages are not installed (`just test` does)")
    made = tmp_path_factory.mktemp("client") / "client.mjs"
    command = [bundler, UI / "src/client.ts", "--file", made, "--format", "esm", "--platform", "node"]
    subprocess.run(command, check=True, capture_output=True, cwd=UI, timeout=60)
    return made


@pytest.fixture(scope="module")
def told(client, llm_server):
    """Return what the script has to tell."""
    with FaultProxy(("127.0.0.1", llm_server.port)) as proxy:
        proxy.cut_after = 6_000  # the event with the sources takes 4,000
        script = ["node", SCRIPT, client, llm_server.url, f"http://127.0.0.1:{proxy.port}"]
        done = subprocess.run(script, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tokens(events):
    return [found["event"]["content"] for found in events if found["event"]["type"] == "token"]


def test_an_answer_comes_as_numbered_events(told):
    assert [found["id"] for found in told["whole"]] == list(range(1, len(told["whole"]) + 1))
    assert tokens(told["whole"]) == TOKENS
    assert told["whole"][-1]["event"]["type"] == "done"


def test_a_connection_that_breaks_again_and_again_loses_and_repeats_nothing(told):
    assert told["broken"] > 3
    assert [found["id"] for found in told["interrupted"]] == list(range(1, len(told["interrupted"]) + 1))
    assert tokens(told["interrupted"]) == [f" w{n}" for n in range(200)]


def test_a_run_is_watched_again_behind_what_was_seen(told):
    assert told["again"] == told["whole"][4:]


def test_a_run_that_is_watched_again_is_taken_up_where_a_connection_broke(told):
    assert told["interruptedAgain"] == told["interrupted"][100:]


@pytest.mark.parametrize("how", ["left", "aborted"])
def test_leaving_stops_the_run(told, llm_server, how):
    found = httpx.get(f"{llm_server.url}/runs/{told[how]}").json()
    assert found["status"] == "cancelled"
    assert found["answer"].startswith(" w0 w1 w2 w3 w4 w5")


def test_a_refusal_says_why(told):
    assert told["refused"]["ours"]
    assert told["refused"]["status"] in range(400, 500)
    assert "message" in told["refused"]["message"]
