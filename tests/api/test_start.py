"""The start: what is wrong is told in one message that names it, and a killed server leaves nothing in the way."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import ask, clean_environment

CLEAN = {0, -signal.SIGTERM}
"""uvicorn raises the signal again once everything is shut down."""


def failed_start(tmp_path, *arguments, **settings):
    """Return what a start prints that must fail."""
    settings = {"data_dir": tmp_path / "data"} | settings
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--port", "1", *arguments],
        env=clean_environment(**settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("stagecast: ")]
    assert len(message) == 1, done.stderr
    return message[0]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"nonsense": 1}, "STAGECAST_NONSENSE"),
        ({"max_streams": "many"}, "STAGECAST_MAX_STREAMS"),
        ({"idle_timeout_s": 0}, "STAGECAST_IDLE_TIMEOUT_S"),
        ({"log_level": "loud"}, "LOG_LEVEL"),
        ({"database_url": "mysql://x"}, "STAGECAST_DATABASE_URL"),
        ({"stages": "retrieval,retrieval"}, "STAGECAST_STAGES"),
        ({"stages": "retrieval,telepathy"}, "telepathy"),
        ({"retriever": "crystal-ball"}, "crystal-ball"),
        ({"llm": "litellm"}, "STAGECAST_LLM_MODEL"),
        ({"llm_model": "nonsense"}, "STAGECAST_LLM_MODEL"),
        ({"database_url": "postgresql://h:bad/x"}, "STAGECAST_DATABASE_URL"),
        ({"database_url": "postgresql://nobody@127.0.0.1:1/x"}, "127.0.0.1:1/x"),
    ],
)
def test_a_bad_setting_stops_the_start_by_name(tmp_path, settings, named):
    assert named in failed_start(tmp_path, **settings)


def test_an_unknown_plugin_is_told_with_those_that_are_installed(tmp_path):
    message = failed_start(tmp_path, reranker="none")
    assert "flashrank" in message


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_password_in_the_database_url_is_not_shown(tmp_path, scheme):
    assert "hunter2" not in failed_start(tmp_path, database_url=f"{scheme}://u:hunter2@127.0.0.1:1/x")


def test_another_machine_is_not_served_without_keys(tmp_path):
    assert "0.0.0.0" in failed_start(tmp_path, "--host", "0.0.0.0")


def test_a_port_that_is_taken_is_told_by_number(server, tmp_path):
    assert str(server.port) in failed_start(tmp_path, "--port", str(server.port), sample=False)


def test_a_misspelled_setting_in_the_env_file_is_found_too(tmp_path):
    (tmp_path / ".env").write_text("STAGECAST_RETREIVER=hybrid\n")
    assert "STAGECAST_RETREIVER" in failed_start(tmp_path)


def test_a_folder_that_another_server_uses_is_refused_by_name(start_server, tmp_path):
    first = start_server(sample=False, ready=False)
    data = first.log_path.parent / "data"
    first.wait_ready()
    message = failed_start(tmp_path, data_dir=data)
    assert str(data) in message
    assert str(first.process.pid) in message


def test_a_killed_server_leaves_nothing_behind_and_the_next_start_works(start_server):
    first = start_server()
    data = first.log_path.parent / "data"
    run = ask(first, "What is aripiprazole?")
    children = psutil.Process(first.process.pid).children(recursive=True)
    assert children
    first.stop(signal.SIGKILL)
    assert not psutil.wait_procs(children, timeout=10)[1]
    second = start_server(data_dir=data)
    assert ask(second, "What is aripiprazole?")[-1]["type"] == "done"
    assert run[-1]["type"] == "done"
    assert second.stop() in CLEAN


def test_a_signal_ends_the_server_cleanly_and_soon(start_server):
    server = start_server(sample=False)
    children = psutil.Process(server.process.pid).children(recursive=True)
    begun = time.monotonic()
    assert server.stop() in CLEAN
    assert time.monotonic() - begun < 8
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_another_embedder_than_the_stores_is_refused_with_the_command_that_helps(
    start_server, tmp_path, new_database, llm
):
    url = new_database()
    start_server(database_url=url).stop()
    message = failed_start(
        tmp_path, database_url=url, embedding_model="openai/other", llm_api_base=llm.url, embedding_dimension=8
    )
    assert "stagecast reindex" in message


def test_help_is_there_at_once():
    modules = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "api.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stderr
    assert not any(
        f" {heavy}\n" in modules for heavy in ("litestar", "sqlalchemy", "numpy", "onnxruntime", "litellm", "pydantic")
    )


def test_the_model_runtime_keeps_no_record_of_its_use(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", "import api, plugins.bert_onnx"]
    subprocess.run(command, env=environment | {"HOME": str(tmp_path)}, check=True, timeout=60)
    assert not list(tmp_path.rglob("*onnxruntime*"))
