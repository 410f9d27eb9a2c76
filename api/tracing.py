"""OpenTelemetry: a span for each run and each of its stages, the answer's with the attributes for generative AI.

Off unless ``STAGECAST_TRACES`` is set; the standard's own ``OTEL_*`` variables say where spans go and as whose. The
span of whoever asks (``traceparent``) is the run's parent, and the run's that of the request to the LLM.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from litestar.types import ASGIApp, Receive, Scope, Send
from opentelemetry import context, propagate, trace

from api import __version__
from pipeline.ending import Outcome
from pipeline.errors import ConfigurationError
from pipeline.live import LiveRun
from pipeline.tracing import trace_headers

CARRIED = b"traceparent"
"""The ids alone: what else callers carry would go on to the LLM's provider."""
FLUSH_S = 1.5


class Tracing:
    """Makes the spans of runs."""

    def __init__(self, provider: trace.TracerProvider, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._tracer = provider.get_tracer("stagecast", __version__)
        self._spans: dict[str, tuple[trace.Span, int]] = {}
        """Those of runs under way, and when each began, in ns since 1970."""

    def close(self) -> None:
        """Send what has not been sent yet, but wait no longer than a moment for a collector that does not answer."""
        flushing = threading.Thread(target=self._flush, name="traces", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)

    def begun(self, live: LiveRun) -> None:
        """Begin a run's span, the one that the LLM is told of."""
        run = live.run
        attributes = {"stagecast.run_id": run.id, "stagecast.session_id": run.session_id}
        begun_ns = time.time_ns() - round((time.monotonic() - live.begun) * 1e9)
        span = self._tracer.start_span("run", kind=trace.SpanKind.SERVER, start_time=begun_ns, attributes=attributes)
        self._spans[run.id] = span, begun_ns
        carried: dict[str, str] = {}
        propagate.inject(carried, trace.set_span_in_context(span))
        trace_headers.set(carried)

    def concluded(self, live: LiveRun, outcome: Outcome) -> None:
        """End a run's span; its stages' are made now, of the times that were taken."""
        if live.run.id not in self._spans:
            return
        span, begun_ns = self._spans.pop(live.run.id)
        inside = trace.set_span_in_context(span)
        unfinished = None if outcome.status == "completed" else live.stage
        for stage, begun in live.stages_begun.items():
            if stage not in outcome.stages and stage != unfinished:  # it had nothing to do
                continue
            self._stage(inside, stage, begun_ns + round((begun - live.begun) * 1e9), live, outcome)
        if outcome.error:
            span.set_status(trace.StatusCode.ERROR, outcome.error.code)
        span.set_attribute("stagecast.status", outcome.status)
        span.set_attribute("stagecast.elapsed_ms", outcome.elapsed_ms)
        span.end(begun_ns + round(outcome.elapsed_ms * 1e6))

    def _stage(self, inside: context.Context, stage: str, start_ns: int, live: LiveRun, outcome: Outcome) -> None:
        taken = outcome.stages.get(stage)
        end_ns = start_ns + round(taken.elapsed_ms * 1e6) if taken else max(time.time_ns(), start_ns)
        generates = stage == "generation" and live.model
        span = self._tracer.start_span(
            f"chat {live.model}" if generates else stage,
            context=inside,
            kind=trace.SpanKind.CLIENT if generates else trace.SpanKind.INTERNAL,
            start_time=start_ns,
            attributes=_generation(live, outcome) if generates else None,
        )
        span.set_attribute("stagecast.stage", stage)
        if taken:
            span.set_attribute("stagecast.elapsed_ms", taken.elapsed_ms)
        if stage in live.queued_ms:
            span.set_attribute("stagecast.queued_ms", live.queued_ms[stage])
        if outcome.error and outcome.error.stage == stage:
            span.set_status(trace.StatusCode.ERROR, outcome.error.code)
        span.end(end_ns)


def _generation(live: LiveRun, outcome: Outcome) -> dict[str, Any]:
    """Return the attributes that OpenTelemetry's conventions for generative AI name, as far as they are known."""
    known = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": live.model,
        "gen_ai.conversation.id": live.run.session_id,
        "gen_ai.response.finish_reasons": [outcome.finish_reason] if outcome.finish_reason else None,
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "stagecast.first_token_ms": outcome.first_token_ms,
        "stagecast.token_count": outcome.token_count,
    }
    return {name: value for name, value in known.items() if value is not None}


def traced(app: ASGIApp) -> ASGIApp:
    """Return the application, its requests within the span that they name."""

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        carried = {
            name.decode(): value.decode("latin-1") for name, value in scope.get("headers", ()) if name in CARRIED
        }
        token = context.attach(propagate.extract(carried))
        try:
            await app(scope, receive, send)
        finally:
            context.detach(token)

    return within


def tracing(exporter: str) -> Tracing | None:
    """Return what traces runs to ``otlp`` or ``console``; None for ``off``.

    Raises:
        ConfigurationError: The packages for it are not installed.
    """
    if exporter == "off":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # optional
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415  # optional
    except ImportError as missing:
        raise ConfigurationError(
            f"setting STAGECAST_TRACES: {missing.name} is not installed; add the extra `traces` "
            "(uv run --extra traces ...), or set it to off"
        ) from None
    provider = TracerProvider(shutdown_on_exit=False)  # which would wait for a collector that is down
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter(out=sys.stderr))
    )
    return Tracing(provider, provider.shutdown)
