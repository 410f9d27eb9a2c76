"""Plugins from a distribution of their own, built, installed and chosen by settings alone; and bad ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.api.test_start import failed_start
from tests.conftest import answer_of, ask, clean_environment, first

EXAMPLE = Path(__file__).parent.parent / "example_plugin"


def install(source, site):
    """Build the wheel of a project and install it into a folder of its own."""
    built = site.parent / "dist"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built], cwd=source, check=True, timeout=60
    )
    [wheel] = built.glob("*.whl")
    subprocess.run(
        [
            os.environ.get("UV") or shutil.which("uv") or pytest.skip("uv is not installed"),
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--offline",
            "--target",
            site,
            wheel,
        ],
        check=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Lend a folder into which the example's wheel is installed; servers see it for as long as this module runs."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")
    install(source, folder / "site")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder / "site")
    yield folder / "site"
    os.environ.pop("PYTHONPATH")
    if before:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def exotic(start_server, site, new_database):
    return start_server(
        database_url=new_database(),
        sample=False,
        retriever="shelf",
        llm="parrot",
        stages="shout,retrieval,reranking,generation",
    )


def test_a_retriever_an_llm_and_a_stage_are_chosen_by_settings_alone(exotic):
    events = ask(exotic, "What has the zebra?")
    assert answer_of(events) == "The zebra has stripes. [1]"
    assert first(events, "generation_start")["model"] == "parrot-1"
    assert [event["type"] for event in events][1:3] == ["shout_start", "shout_complete"]
    assert list(first(events, "done")["stages"]) == ["shout", "retrieval", "reranking", "generation"]
    assert first(events, "sources")["sources"][0]["title"] == "Zebra"


def test_the_list_of_plugins_says_which_distribution_they_are_from(exotic):
    shown = httpx.get(f"{exotic.url}/plugins").json()
    assert {row["name"] for row in shown["pipeline"] if row["distribution"] == "stagecast-example 1.2.3"} == {
        "shout", "shelf", "parrot",
    }  # fmt: skip


def test_a_plugin_that_is_installed_but_not_chosen_is_not_imported(start_server, site, new_database, tmp_path):
    marker = tmp_path / "imported"
    make_plugin(site, "spy", f"open({str(marker)!r}, 'w')\nclass Plugin: pass\n", group="stagecast.llms")
    server = start_server(database_url=new_database(), sample=False)
    assert "spy" in {row["name"] for row in httpx.get(f"{server.url}/plugins").json()["installed"]}
    assert not marker.exists()


def test_a_plugins_own_settings_are_given_by_variables_of_its_name(start_server, site, new_database):
    server = start_server(
        database_url=new_database(), sample=False, retriever="shelf", llm="parrot", shelf_books="lion, zebra"
    )
    assert answer_of(ask(server, "zebra?")) == "The zebra has stripes. [1]"
    other = start_server(database_url=new_database(), sample=False, retriever="shelf", llm="parrot", shelf_books="lion")
    assert first(ask(other, "zebra?"), "generation_complete")["finish_reason"] == "no_sources"


def test_the_command_shows_what_can_be_set_of_a_plugin(site, tmp_path):
    shown = subprocess.run(
        [sys.executable, "-m", "api.cli", "plugins", "shelf"],
        env=clean_environment(data_dir=tmp_path, shelf_books="lion") | {"COLUMNS": "160"},
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "retriever shelf  stagecast_example:Shelf, from stagecast-example 1.2.3" in shown
    assert "A retriever with plain functions" in shown
    assert "STAGECAST_SHELF_BOOKS  str, ...  zebra,lion  lion  what stands on the shelf" in shown


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"shelf_book": "lion"}, "STAGECAST_SHELF_BOOK; those of the plugins in force: STAGECAST_SHELF_BOOKS"),
        ({"shelve_books": "lion"}, "unknown setting STAGECAST_SHELVE_BOOKS"),
    ],
)
def test_a_setting_that_no_plugin_knows_stops_the_start(site, tmp_path, new_database, given, named):
    assert named in failed_start(tmp_path, retriever="shelf", database_url=new_database(), **given)


def test_a_plugin_cannot_take_a_name_of_the_servers_settings(site, tmp_path, new_database):
    code = (
        "import msgspec\nclass Plugin:\n    model = 'x'\n    class Settings(msgspec.Struct):\n        model: str = ''\n"
        "    def __init__(self, host, settings): pass\n    def stream(self, p): yield ''"
    )
    make_plugin(site, "llm", code, group="stagecast.llms")
    message = failed_start(tmp_path, llm="llm", database_url=new_database())
    assert "STAGECAST_LLM_MODEL" in message
    assert "rename" in message


def make_plugin(site, name, code, *, group, distribution=None):
    """Put an importable module with an entry point into the folder, as an installed wheel does."""
    (site / f"plugin_{name}.py").write_text(code)
    info = site / f"{distribution or name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = plugin_{name}:Plugin\n")


BAD = {
    "raises-on-import": ("raise RuntimeError('no licence')", "no licence"),
    "raises-when-made": ("class Plugin:\n    def __init__(self, host): raise ValueError('no key')", "no key"),
    "lacks-a-method": ("class Plugin:\n    model = 'x'\n    def __init__(self, host): pass", "'stream'"),
    "takes-other-arguments": (
        "class Plugin:\n    model = 'x'\n    def __init__(self, host): pass\n    def stream(self): yield ''",
        "1 argument",
    ),
    "does-not-yield": (
        "class Plugin:\n    model = 'x'\n    def __init__(self, host): pass\n    async def stream(self, p): return ''",
        "yields",
    ),
    "lacks-an-attribute": (
        "class Plugin:\n    def __init__(self, host): pass\n    def stream(self, p): yield ''",
        "'model'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_stops_the_start_with_its_name_and_fault(site, tmp_path, new_database, name):
    code, named = BAD[name]
    module = name.replace("-", "_")
    make_plugin(site, module, code, group="stagecast.llms")
    message = failed_start(tmp_path, llm=module, database_url=new_database())
    assert module in message
    assert named in message
    assert f"{module} 1.0" in message


def test_a_name_that_two_distributions_offer_stops_the_start_with_both(site, tmp_path):
    for distribution in ("first-dist", "second-dist"):
        make_plugin(site, "twin", "class Plugin: pass", group="stagecast.rerankers", distribution=distribution)
    message = failed_start(tmp_path, reranker="twin")
    assert "first-dist 1.0" in message
    assert "second-dist 1.0" in message
