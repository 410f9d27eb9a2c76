"""What Prometheus is told: runs, their stages and tokens, readers, the event loop, the database's pool, ingestion.

Numbers of a run are those of its events, its log line and its stored row, taken once; only their unit is seconds here.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from pipeline.ending import Outcome
from pipeline.live import LiveRun

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 7, 10, 20, 30, 60, 300)
"""Upper bounds of the histograms' buckets: from a fused list put in order to the longest run."""
Count = Callable[[], float]


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._runs = self._outcomes("runs", "Runs that have ended, by how.", "completed", "cancelled", "error")
        self._tokens = self._counter("tokens", "Tokens of answers.")
        self._closed_early = self._counter(
            "upstream_closes", "Models that were left before their answer's end, because the run was stopped."
        )
        self._whole = self._histogram("run_seconds", "From a question to the end of its run.")
        self._first_token = self._histogram("first_token_seconds", "From a question to the first token of its answer.")
        self._gap = self._histogram("longest_token_gap_seconds", "A run's longest time between two tokens.")
        self._stages = self._histogram("stage_seconds", "From a stage's beginning to its end.", "stage")
        self._queued = self._histogram("stage_queue_seconds", "What a stage of it stood in line.", "stage")
        self.loop_lag = self._histogram(
            "loop_lag_seconds", "How long the event loop let a call wait, ten times a second."
        )
        self.documents = self._outcomes(
            "documents", "Documents that were uploaded, by what became of them.", "stored", "unchanged", "failed"
        )

    def begun(self, live: LiveRun) -> None:
        """Count nothing yet."""

    def concluded(self, live: LiveRun, outcome: Outcome) -> None:
        """Count a run that has ended."""
        self._runs.labels(outcome.status).inc()
        self._tokens.inc(outcome.token_count)
        self._whole.observe(outcome.elapsed_ms / 1000)
        if live.stop.done() and live.model and "generation" not in outcome.stages:
            self._closed_early.inc()
        if outcome.first_token_ms is not None:
            self._first_token.observe(outcome.first_token_ms / 1000)
        if live.token_gap_ms is not None:
            self._gap.observe(live.token_gap_ms / 1000)
        for stage, time in outcome.stages.items():
            self._stages.labels(stage).observe(time.elapsed_ms / 1000)
        for stage, queued_ms in live.queued_ms.items():
            self._queued.labels(stage).observe(queued_ms / 1000)

    def gauge(self, name: str, meaning: str, count: Count) -> None:
        """Show a number as it is when it is asked for."""
        Gauge(f"stagecast_{name}", meaning, registry=self.registry).set_function(count)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def _outcomes(self, name: str, meaning: str, *outcomes: str) -> Counter:
        counter = self._counter(name, meaning, "outcome")
        for outcome in outcomes:  # a series that begins with its first failure hides it
            counter.labels(outcome)
        return counter

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"stagecast_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"stagecast_{name}", meaning, labels, buckets=SECONDS, registry=self.registry)
