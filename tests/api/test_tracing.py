"""Traces, sent to a collector that speaks the real protocol."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.tracing import FLUSH_S
from tests.conftest import ask, first

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps every span that it is sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Exported)
        self.spans = []


class Exported(BaseHTTPRequestHandler):
    """Takes spans."""

    server: Collector

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        sent = ExportTraceServiceRequest.FromString(body)
        self.server.spans += [span for of in sent.resource_spans for scope in of.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def collector():
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module", params=["auto", "litellm"])
def traced(request, start_server, sample_database, llm, collector):
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    settings = {"llm_model": "openai/fake", "llm_api_base": llm.url, "llm_client": request.param, "traces": "otlp"}
    return start_server(database_url=sample_database, environment=environment, **settings)


def spans_of(collector, run_id, count):
    """Return the spans of a run by their names."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        runs = [span for span in collector.spans if attributes(span).get("stagecast.run_id") == run_id]
        if runs:
            found = [span for span in collector.spans if span.trace_id == runs[0].trace_id]
            if len(found) >= count:
                return {span.name: span for span in found}
        time.sleep(0.02)
    raise AssertionError(f"{count} spans of {run_id} were not sent")


def attributes(span):
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value"))
        for pair in span.attributes
        if pair.value.WhichOneof("value") != "array_value"
    }


def took_ms(span):
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def test_a_run_and_its_stages_are_spans_with_the_numbers_of_its_events(traced, collector, llm):
    events = ask(traced, "What is aripiprazole?")
    done, run_id = first(events, "done"), first(events, "run_start")["run_id"]
    spans = spans_of(collector, run_id, 4)
    assert set(spans) == {"run", "retrieval", "reranking", "chat openai/fake"}, "condensing had nothing to do"
    run, answer = spans["run"], spans["chat openai/fake"]
    assert took_ms(run) == pytest.approx(done["elapsed_ms"], abs=0.001)
    for name, stage in (("retrieval", "retrieval"), ("reranking", "reranking"), ("chat openai/fake", "generation")):
        assert spans[name].parent_span_id == run.span_id
        assert took_ms(spans[name]) == pytest.approx(done["stages"][stage]["elapsed_ms"], abs=0.001)
        assert attributes(spans[name])["stagecast.queued_ms"] == first(events, f"{stage}_complete")["queued_ms"]
    told = attributes(answer)
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "openai/fake")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (11, 7)


def test_a_trace_goes_on_from_who_asks_to_the_model(traced, collector, llm):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    events = ask(traced, "What is aripiprazole? traced", headers=headers)
    run = spans_of(collector, first(events, "run_start")["run_id"], 4)["run"]
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == (TRACE, PARENT)
    asked = next(call for call in reversed(llm.calls) if "traced" in call.question)
    assert f"00-{TRACE}-{run.span_id.hex()}-01" in asked.head.decode()


def test_a_collector_that_does_not_answer_holds_up_nobodys_end(start_server, sample_database):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        server = start_server(database_url=sample_database, traces="otlp", environment=environment)
        ask(server, "What is aripiprazole?")
        begun = time.monotonic()
        server.stop()
    assert time.monotonic() - begun < FLUSH_S + 4


def test_a_failed_run_is_a_failed_span_and_a_stopped_one_is_not(traced, collector):
    events = ask(traced, "llm:truncated")
    spans = spans_of(collector, first(events, "run_start")["run_id"], 4)
    assert (spans["run"].status.code, spans["run"].status.message) == (2, "UPSTREAM_TRUNCATED")
    assert spans["chat openai/fake"].status.code == 2
    with httpx.stream("POST", f"{traced.url}/chat", json={"message": "llm:slow"}, timeout=30) as response:
        run_id = next(
            line.split('"run_id":"')[1].split('"')[0] for line in response.iter_lines() if '"run_id":"' in line
        )
    assert attributes(spans_of(collector, run_id, 1)["run"])["stagecast.status"] == "cancelled"
    assert spans_of(collector, run_id, 1)["run"].status.code == 0
