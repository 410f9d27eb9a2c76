"""``stagecast dashboard``: each metric has its panel, and a real Prometheus answers whatever a panel asks."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from itertools import product

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ask, free_port

NOT_SHOWN = {"process_virtual_memory_bytes"}
"""What a process has mapped says nothing about what it uses."""
NAMES = re.compile(r"\b(?:stagecast|process)_\w+")
UNITS = {"s", "bytes", "short", "reqps", "percentunit"}
SAMPLES = {"counter": "_total", "histogram": "_bucket"}
CONFIGURATION = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: stagecast, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@pytest.fixture(scope="module")
def dashboard():
    command = [sys.executable, "-m", "api.cli", "dashboard"]
    return json.loads(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)


@pytest.fixture(scope="module")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def measured(start_server, new_database, llm):
    settings = {"llm": "openai", "llm_model": "openai/fake", "llm_api_base": llm.url}
    return start_server(database_url=new_database(), sample="false", **settings)


class Prometheus:
    """A running Prometheus that looks at one server every second."""

    def __init__(self, port, server):
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self.target = server.url.removeprefix("http://")

    def get(self, path, **parameters):
        response = httpx.get(f"{self.url}/{path}", params=parameters, timeout=10)
        assert response.status_code == 200, (parameters, response.text)
        return response.json()["data"]

    def lines(self, promql):
        """Return the lines that a panel would show: for each the labels and the numbers."""
        now = time.time()
        matrix = self.get("query_range", query=self.filled(promql), start=now - 30, end=now, step=1)["result"]
        found = [(line["metric"], [float(value) for _, value in line["values"]]) for line in matrix]
        return [(labels, numbers) for labels, numbers in found if any(map(math.isfinite, numbers))]

    def filled(self, promql):
        """Put in what Grafana does for the variables."""
        instance = re.escape(self.target).replace("\\", "\\\\")
        return promql.replace("$__rate_interval", "1m").replace("$instance", instance)

    def await_lines(self, promql, seconds=10):
        """Return the lines of a query as soon as there are any; none if there are none in time."""
        deadline = time.monotonic() + seconds
        while not (found := self.lines(promql)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, measured):
    program = shutil.which("prometheus") or pytest.skip("Prometheus is not installed")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    running = Prometheus(port, measured)
    (folder / "prometheus.yml").write_text(CONFIGURATION.format(target=running.target))
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder, stderr=log)
    try:
        deadline = time.monotonic() + 15
        while not listens(running):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(10)


def listens(prometheus):
    try:
        return prometheus.get("query", query="1")
    except httpx.TransportError:
        return None


def upload(server):
    files = {"one": ("a.md", b"# A\n\nA zebra has stripes."), "other": ("b.bin", b"\0\1")}
    assert httpx.post(f"{server.url}/documents", files=files).status_code == 202


def leave(server):
    """Ask, and be gone after some words."""
    with httpx.stream("POST", f"{server.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
        next(line for line in response.iter_lines() if '" w5"' in line)


@pytest.fixture(scope="module")
def used(prometheus, measured):
    """Lend Prometheus once it has seen everything happen: a rate is known of what it had seen before."""
    assert prometheus.await_lines("stagecast_runs_total")
    upload(measured)
    assert prometheus.await_lines('stagecast_documents_total{outcome="stored"} > 0')
    ask(measured, "What has stripes?")
    assert prometheus.await_lines('stagecast_stage_seconds_count{stage="generation"}')
    leave(measured)
    ask(measured, "What has stripes?")
    ask(measured, "llm:truncated")
    for outcome in ("completed", "cancelled", "error"):
        assert prometheus.await_lines(f'stagecast_runs_total{{outcome="{outcome}"}} > 0')
    return prometheus


def exposed(server):
    """Return what each metric is called in queries."""
    families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
    names = {family.name + SAMPLES.get(family.type, "") for family in families}
    return {name for name in names if not name.endswith("_created")}


def test_every_metric_has_a_panel_and_every_panel_names_metrics_that_exist(panels, measured):
    named = {name for panel in panels for target in panel["targets"] for name in NAMES.findall(target["expr"])}
    assert named == exposed(measured) - NOT_SHOWN


def test_panels_fill_the_grid_and_none_covers_another(dashboard):
    places = [[panel["gridPos"][side] for side in "xywh"] for panel in dashboard["panels"]]
    taken = [cell for x, y, w, h in places for cell in product(range(x, x + w), range(y, y + h))]
    assert len(taken) == len(set(taken))
    assert set(taken) == set(product(range(24), range(max(y for _, y in taken) + 1)))


def test_every_panel_says_what_it_shows(panels):
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"].endswith(".") for panel in panels)
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in panels} == UNITS


def test_prometheus_has_an_answer_for_every_panel(panels, used):
    """Whatever can be shown has happened: an answer, one that was left, one that failed, an upload of two files."""
    unanswered = [
        (panel["title"], target["expr"])
        for panel in panels
        for target in panel["targets"]
        if not used.await_lines(target["expr"])
    ]
    assert unanswered == []


def test_every_line_has_a_name_of_its_own(panels, used):
    for panel in panels:
        names = [
            target["legendFormat"].replace("{{", "{").replace("}}", "}").format_map(labels)
            for target in panel["targets"]
            for labels, _ in used.await_lines(target["expr"])
        ]
        assert len(names) == len(set(names)), panel["title"]


def test_the_outcomes_and_stages_are_told_apart(panels, used):
    def shown(title, label):
        [panel] = [panel for panel in panels if panel["title"].startswith(title)]
        lines = used.await_lines(panel["targets"][0]["expr"])
        return {labels[label] for labels, numbers in lines if any(number > 0 for number in numbers)}

    assert shown("Questions a second", "outcome") == {"completed", "cancelled", "error"}
    assert shown("Documents uploaded", "outcome") == {"stored", "failed"}
    assert shown("Times of the stages", "stage") == {"retrieval", "reranking", "generation"}


def test_the_instance_can_be_chosen_of_those_that_answer(dashboard, used):
    [asked] = [one["query"]["query"] for one in dashboard["templating"]["list"] if one["name"] == "instance"]
    [(metric, label)] = re.findall(r"^label_values\((\w+), (\w+)\)$", asked)
    assert used.get(f"label/{label}/values", **{"match[]": metric}) == [used.target]
