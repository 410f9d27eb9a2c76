"""``stagecast check``: every plugin that is shipped keeps its port, and one that does not is told of."""

import subprocess
import sys

import pytest

from tests.api.test_plugin_wheel import make_plugin
from tests.conftest import clean_environment


def checked(name, folder, **settings):
    """Return the exit code and what is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "check", name],
        env=clean_environment(data_dir=folder, **settings) | {"HTTPS_PROXY": "http://127.0.0.1:9", "COLUMNS": "300"},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    ["hybrid", "qdrant", "flashrank", "extractive", "minilm", "condense", "retrieval", "reranking", "generation"],
)
def test_what_is_shipped_passes(name, sample_database, tmp_path):
    code, said = checked(name, tmp_path, database_url=sample_database)
    assert code == 0, said
    assert "failed" not in said
    assert said.count("passed") >= 7


@pytest.mark.parametrize("name", ["openai", "litellm"])
def test_those_that_ask_an_llm_pass(name, llm, sample_database, tmp_path):
    far_end = {"llm_model": "openai/fake", "llm_api_base": llm.url}
    code, said = checked(f"llm:{name}", tmp_path, database_url=sample_database, **far_end)
    assert f"llm {name}\n" in said
    assert code == 0, said


def test_the_embedder_that_asks_a_server_passes(server, tmp_path):
    """Asked is a server of ours, whose embedder is offered to clients of OpenAI's API."""
    far_end = {"embedding_model": "openai/all-MiniLM-L6-v2/int8", "llm_api_base": f"{server.url}/v1"}
    code, said = checked("embedder:litellm", tmp_path, **far_end)
    assert code == 0, said
    assert said.count("passed") >= 7


def test_one_that_breaks_its_contract_is_told_what_is_right(tmp_path, monkeypatch):
    code = (
        "import numpy as np\nclass Plugin:\n    name, dimension, max_tokens = 'n', 2, 9\n"
        "    def __init__(self, host): pass\n"
        "    def embed(self, texts): return np.ones((len(texts), 2), np.float32)\n"
        "    def count_tokens(self, texts): return [len(text) for text in texts]"
    )
    make_plugin(tmp_path, "crooked", code, group="stagecast.embedders")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    exit_code, said = checked("crooked", tmp_path)
    assert exit_code == 1
    assert "failed  makes-unit-vectors" in said
    assert "they must be of length 1" in said


def test_a_name_that_nothing_has_is_told(tmp_path):
    code, said = checked("nobody", tmp_path)
    assert code == 1
    assert "is named 'nobody'" in said


def test_pytest_runs_the_checks_as_tests(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--pyargs", "pipeline.conformance", "--plugin", "embedder:minilm"],
        cwd=tmp_path, env=clean_environment(data_dir=tmp_path), capture_output=True, text=True, timeout=110,
        check=False,
    )  # fmt: skip
    assert " 9 passed" in done.stdout, done.stdout + done.stderr
