"""``stagecast dashboard``: what ``GET /metrics`` tells, as a dashboard for Grafana."""

from __future__ import annotations

from api import grafana
from api.grafana import Panel, Query
from pipeline.loopwatch import BLOCKED_S

ESTIMATED = "Percentiles are estimated between bounds that are a factor of 1.4 to 5 apart, the lowest at 1 ms."
GOOD_AND_BAD = {"completed": "green", "cancelled": "yellow", "error": "red"}
KEPT_AND_NOT = {"stored": "green", "unchanged": "blue", "failed": "red"}


def dashboard() -> str:
    """Return the dashboard as JSON, to be imported into Grafana."""
    rows = {
        "Questions": _questions(),
        "How long people wait": _waiting(),
        "Stages": _stages(),
        "Answers and documents": _answers(),
        "Server": [*_shared(), *_process()],
    }
    return grafana.dashboard("Stagecast", "stagecast_runs_under_way", rows)


def _questions() -> list[Panel]:
    failed = _rate("stagecast_runs_total", only='outcome="error"')
    return [
        Panel(
            "Questions a second",
            "Runs that have ended, by how. Questions that are refused (429, 503) are no runs.",
            "reqps",
            [Query(_rate("stagecast_runs_total", by="outcome"), "{{outcome}}")],
            stacked=True,
            colors=GOOD_AND_BAD,
        ),
        Panel(
            "Share of errors",
            "Of all runs that have ended; nothing is drawn where none has.",
            "percentunit",
            [Query(f"{failed} / {_rate('stagecast_runs_total')}", "errors")],
            colors={"errors": "red"},
        ),
        Panel(
            "Under way",
            "Questions that are being answered, and readers that are connected: a run may have several, or none.",
            "short",
            [
                Query(f"sum({_of('stagecast_runs_under_way')})", "runs"),
                Query(f"sum({_of('stagecast_open_streams')})", "readers"),
            ],
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        Panel(
            "Time to the first token",
            f"From a question to the first token of its answer, told when its run has ended. {ESTIMATED}",
            "s",
            _quantiles("stagecast_first_token_seconds", 50, 95, 99),
            logarithmic=True,
        ),
        Panel(
            "Time of a run",
            f"From a question to the end of its run, however it ended. {ESTIMATED}",
            "s",
            _quantiles("stagecast_run_seconds", 50, 95, 99),
            logarithmic=True,
        ),
        Panel(
            "Longest gap between tokens",
            f"Of each run, told when it has ended: how long its text stood still. {ESTIMATED}",
            "s",
            _quantiles("stagecast_longest_token_gap_seconds", 95, 99),
        ),
    ]


def _stages() -> list[Panel]:
    return [
        Panel(
            "Times of the stages, p95",
            f"From a stage's beginning to its end. {ESTIMATED}",
            "s",
            [Query(_quantile("stagecast_stage_seconds", 95, by="stage"), "{{stage}}")],
            logarithmic=True,
        ),
        Panel(
            "Time in line, p95",
            f"What of a stage's time it waited for a thread or a database connection. {ESTIMATED}",
            "s",
            [Query(_quantile("stagecast_stage_queue_seconds", 95, by="stage"), "{{stage}}")],
        ),
    ]


def _answers() -> list[Panel]:
    return [
        Panel(
            "Tokens a second",
            "Of all answers, counted when their runs end.",
            "short",
            [Query(_rate("stagecast_tokens_total"), "tokens")],
        ),
        Panel(
            "Models left early, a minute",
            "LLMs that were left before their answer's end, because the run was stopped.",
            "short",
            [Query(f"60 * {_rate('stagecast_upstream_closes_total')}", "models")],
        ),
        Panel(
            "Documents uploaded, a minute",
            "By what became of them, counted when their upload ends.",
            "short",
            [Query(f"60 * {_rate('stagecast_documents_total', by='outcome')}", "{{outcome}}")],
            stacked=True,
            colors=KEPT_AND_NOT,
        ),
    ]


def _shared() -> list[Panel]:
    return [
        Panel(
            "Lag of the event loop, p99",
            "How long a call waits for its turn, and each token with it. Code that holds the loop for longer than the "
            f"line is named in the log. {ESTIMATED}",
            "s",
            [Query(_quantile("stagecast_loop_lag_seconds", 99, by="instance"), "{{instance}}")],
            limit=BLOCKED_S,
        ),
        Panel(
            "Database connections",
            "Lent by the pool, beside as many as it may lend; whoever finds none waits in line.",
            "short",
            [
                Query(_of("stagecast_database_connections_in_use"), "{{instance}}"),
                Query(f"min({_of('stagecast_database_connections')})", "may be lent"),
            ],
            colors={"may be lent": "red"},
        ),
        Panel(
            "Open files",
            "Of as many as the process may have; every connection is one.",
            "percentunit",
            [Query(f"{_of('process_open_fds')} / {_of('process_max_fds')}", "{{instance}}")],
        ),
    ]


def _process() -> list[Panel]:
    return [
        Panel(
            "Processor",
            "Of the server's process alone, without PostgreSQL's; 100 % is one core.",
            "percentunit",
            [Query(_rate("process_cpu_seconds_total", by="instance"), "{{instance}}")],
        ),
        Panel(
            "Memory",
            "Resident, of the server's process alone, without PostgreSQL's.",
            "bytes",
            [Query(_of("process_resident_memory_bytes"), "{{instance}}")],
        ),
        Panel(
            "Time since the start",
            "Falls to nothing where a server was started again.",
            "s",
            [Query(f"time() - {_of('process_start_time_seconds')}", "{{instance}}")],
        ),
    ]


def _of(metric: str, only: str = "") -> str:
    return f'{metric}{{instance=~"$instance"{only and ", "}{only}}}'


def _rate(metric: str, *, only: str = "", by: str = "") -> str:
    return f"sum{by and f' by ({by}) '}(rate({_of(metric, only)}[$__rate_interval]))"


def _quantile(metric: str, percent: int, *, by: str = "") -> str:
    rates = _rate(f"{metric}_bucket", by=f"le{by and ', '}{by}")
    return f"histogram_quantile({percent / 100}, {rates})"


def _quantiles(metric: str, *percents: int) -> list[Query]:
    return [Query(_quantile(metric, percent), f"p{percent}") for percent in percents]
