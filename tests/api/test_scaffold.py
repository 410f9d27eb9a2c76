"""``stagecast new`` writes packages that install and keep their ports as they are."""

import subprocess
import sys
from pathlib import Path

import pytest

from api.scaffold import CODE, write
from pipeline.errors import ConfigurationError
from tests.api.test_plugin_wheel import install
from tests.conftest import answer_of, ask, clean_environment, first

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", CODE)
def test_a_new_plugin_passes_its_own_test(kind, tmp_path):
    write(kind, "my-demo", tmp_path)
    folder = tmp_path / "stagecast-my-demo"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder],
        cwd=folder, env=clean_environment() | {"PYTHONPATH": f"{folder}:{ROOT}"}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_new_retriever_answers_once_it_is_installed(tmp_path, start_server, new_database, monkeypatch):
    write("retriever", "demo", tmp_path)
    install(tmp_path / "stagecast-demo", tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    server = start_server(database_url=new_database(), sample=False, retriever="demo", demo_books="zebra")
    events = ask(server, "What has the zebra?")
    assert "[1]" in answer_of(events)
    assert first(events, "sources")["sources"][0]["title"] == "Zebra"


@pytest.mark.parametrize(
    ("kind", "name", "said"), [("retreiver", "x", "no plugin is a 'retreiver'"), ("llm", "My LLM", "is no name")]
)
def test_what_cannot_be_written_is_told(kind, name, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        write(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    write("llm", "x", tmp_path)
    with pytest.raises(ConfigurationError, match="there already"):
        write("llm", "x", tmp_path)
