"""``GET /metrics``: the numbers of a run there are those of its events, its log line and its stored row."""

import time

import httpx
import pytest
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ask, first


def samples_of(server):
    response = httpx.get(f"{server.url}/metrics")
    assert response.headers["content-type"] == CONTENT_TYPE_LATEST
    text = response.text
    return {
        (sample.name.removeprefix("stagecast_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


@pytest.fixture(scope="module")
def measured(start_server, sample_database, server, llm):
    return start_server(database_url=sample_database, llm_model="openai/fake", llm_api_base=llm.url)


@pytest.fixture(scope="module")
def run(measured):
    """The events of the first run of a server, its log line, its stored row, and the metrics after it."""
    events = ask(measured, "What is aripiprazole?")
    run_id = first(events, "run_start")["run_id"]
    [line] = [line for line in measured.log_lines() if (line["event"], line.get("run_id")) == ("run.complete", run_id)]
    return events, line, httpx.get(f"{measured.url}/runs/{run_id}").json(), samples_of(measured)


def test_the_numbers_of_a_run_are_the_same_wherever_they_are_told(run):
    events, line, stored, samples = run
    done, generation = first(events, "done"), first(events, "generation_complete")
    assert samples["runs_total", "completed"] == 1
    assert samples["run_seconds_sum",] * 1000 == pytest.approx(done["elapsed_ms"])
    assert line["elapsed_ms"] == stored["elapsed_ms"] == done["elapsed_ms"]
    assert samples["first_token_seconds_sum",] * 1000 == pytest.approx(line["first_token_ms"])
    assert samples["tokens_total",] == line["token_count"] == generation["token_count"] == 7
    assert stored["stages"] == done["stages"]
    for stage in ("retrieval", "reranking", "generation"):
        told = first(events, f"{stage}_complete")
        assert samples["stage_seconds_sum", stage] * 1000 == pytest.approx(told["elapsed_ms"])
        assert told["elapsed_ms"] == stored["stages"][stage]["elapsed_ms"]
        assert samples["stage_queue_seconds_sum", stage] * 1000 == pytest.approx(told["queued_ms"])


def test_the_server_itself_is_measured(run):
    _, _, _, samples = run
    assert samples["loop_lag_seconds_count",] > 0
    assert samples["database_connections",] == 10
    assert samples["database_connections_in_use",] == 0
    assert samples["process_resident_memory_bytes",] > 1e6


def test_a_stopped_run_closes_its_model_and_its_stream(measured, run, llm):
    before = samples_of(measured)
    with httpx.stream("POST", f"{measured.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
        for line in response.iter_lines():
            if '" w5"' in line:
                during = samples_of(measured)
                break
    deadline = time.monotonic() + 5
    while (after := samples_of(measured))["runs_total", "cancelled"] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert during["open_streams",] == before["open_streams",] + 1
    assert during["runs_under_way",] == 1
    assert after["open_streams",] == 0
    assert after["runs_total", "cancelled"] == 1
    assert after["upstream_closes_total",] == before["upstream_closes_total",] + 1
    assert after["longest_token_gap_seconds_count",] == before["longest_token_gap_seconds_count",] + 1


def test_uploaded_documents_are_counted(start_server, new_database):
    server = start_server(database_url=new_database(), sample="false")
    files = {"one": ("a.md", b"# A\n\nA zebra."), "other": ("b.bin", b"\0\1")}
    job = httpx.post(f"{server.url}/documents", files=files).json()
    deadline = time.monotonic() + 30
    while httpx.get(f"{server.url}/jobs/{job['job_id']}").json()["status"] in {"queued", "running"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    samples = samples_of(server)
    assert (samples["documents_total", "stored"], samples["documents_total", "failed"]) == (1, 1)
