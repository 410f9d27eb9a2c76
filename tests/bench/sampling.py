"""One load on one server, and what it cost."""

import os
from typing import Any

import msgspec
import numpy as np

from tests.bench import load
from tests.bench.metering import CpuMeter, MachineMeter, memory_mb


class Sample(msgspec.Struct, kw_only=True):
    """What one load on one server showed; ``_ms`` are quantiles ``{"p50", "p99", "max"}``, empty without a token."""

    server: str
    streams: int
    whole: int
    tokens: int
    cpu_us: float
    """Of the server's process, in all."""
    database_cpu_us: float
    """Of its PostgreSQL's processes."""
    plateau_tokens: int
    """Received while every stream was open; 0 when that never was."""
    plateau_us_per_token: float | None
    """CPU of the server's process at that time."""
    late_ms: dict[str, float]
    first_ms: dict[str, float]
    rss_mb: float
    database_mb: float
    rig_cores: float
    """How busy upstream and load kept their core; near 1 the figures are theirs and no longer the server's."""
    other_cores: float
    """What else the machine did, in cores."""
    problems: list[str]

    @property
    def us_per_token(self):
        return self.cpu_us / self.tokens if self.tokens else float("nan")


def quantiles_ms(values_ns):
    if not len(values_ns):
        return {}
    p50, p99, most = np.quantile(np.frombuffer(values_ns, np.int64), [0.5, 0.99, 1.0]) / 1e6
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(most), 3)}


def take(rig, name, plan):
    """Put a load on a contender and return the sample, once the upstream is silent again."""
    target, upstream = rig.target(name), rig.upstream
    rig_meter = MachineMeter(os.getpid(), upstream.process.pid)
    everything = MachineMeter(os.getpid(), upstream.process.pid, target.pid)
    cpu = CpuMeter(target.pid)
    outcome = load.run(target, plan)
    server_ns, database_ns = cpu.server_ns(), cpu.children_ns()
    rig_cores, busy = rig_meter.cores()["mine"], everything.cores()
    seen: dict[str, Any] = {
        "rss_mb": round(memory_mb(target.pid)[0], 1),
        "database_mb": round(memory_mb(target.pid)[1], 1),
        "rig_cores": round(rig_cores, 2),
        "other_cores": round(busy["others"], 2),
    }
    rig.await_silence(name)
    plateau = outcome.plateau_cpu_ns / 1e3 / outcome.plateau_tokens if outcome.plateau_tokens else None
    return Sample(
        server=name,
        streams=plan.streams,
        whole=outcome.whole,
        tokens=outcome.tokens,
        cpu_us=server_ns / 1e3,
        database_cpu_us=database_ns / 1e3,
        plateau_tokens=outcome.plateau_tokens,
        plateau_us_per_token=plateau,
        late_ms=quantiles_ms(outcome.late),
        first_ms=quantiles_ms(outcome.first),
        problems=outcome.problems[:3],
        **seen,
    )
