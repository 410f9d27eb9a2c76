"""Experiments in which the servers take turns: on a noisy machine only what was measured in the same round compares.

Each returns ``{"plan": {...}, "servers": {name: figures}}``, figures of every round in a list. A ``multiple`` is
``{"median", "min", "max"}`` over the rounds of a server's CPU per token divided by the base's in the same round.
"""

import statistics

import msgspec

from tests.bench import sampling
from tests.bench.load import Plan, Script

UNPACED_BASE = "asgi_raw"
PACED_BASE = "no_asgi"
PACE_MS = 20
KEPT_PACE = 0.9
"""Of the tokens that are due while all streams are open; a server that delivers fewer is overloaded."""


def warm(rig):
    """Give every server a few answers, so that none pays for first times while it is measured."""
    for name in rig.names:
        for _ in range(2):
            sampling.take(rig, name, Plan(script=Script(20, 0), streams=10, spread_s=1.0))


def unpaced(rig, *, rounds, streams, tokens):
    """Tokens as fast as they go through; what is left per token when runs of a single one are taken off is marginal."""
    long, short = (Plan(script=Script(n, 0), streams=streams) for n in (tokens, 1))
    taken = in_turns(rig, rounds, lambda name: (whole(rig, name, long), whole(rig, name, short)))
    figures = {
        name: {
            "us_per_token": [answers.us_per_token for answers, _ in pairs],
            "marginal_us_per_token": [marginal(*pair) for pair in pairs],
            "with_database_us_per_token": [(a.cpu_us + a.database_cpu_us) / a.tokens for a, _ in pairs],
            "rig_cores": max(answers.rig_cores for answers, _ in pairs),
            "other_cores": max(answers.other_cores for answers, _ in pairs),
            "rss_mb": pairs[-1][0].rss_mb,
        }
        for name, pairs in taken.items()
    }
    for cost in ("us_per_token", "marginal_us_per_token"):
        add_multiples(figures, cost, UNPACED_BASE, of="us_per_token")
    return {"plan": msgspec.to_builtins(long) | {"rounds": rounds, "base": UNPACED_BASE}, "servers": figures}


def paced(rig, *, rounds, streams, plateau_s, spread_s=1.0):
    """Streams that are all open: CPU per token from when each has had one until ``plateau_s`` later."""
    lasting = Script(100_000, PACE_MS, PACE_MS)
    plan = Plan(script=lasting, streams=streams, spread_s=spread_s, plateau_s=plateau_s, deadline_s=plateau_s + 30)
    taken = in_turns(rig, rounds, lambda name: sampling.take(rig, name, plan))
    due = KEPT_PACE * streams * plateau_s * 1000 / PACE_MS
    figures = {
        name: {
            "us_per_token": [steady_cost(sample, due) for sample in samples],
            "overloaded": any(sample.plateau_tokens < due for sample in samples),
            "late_p99_ms": [sample.late_ms.get("p99") for sample in samples],
            "rig_cores": max(sample.rig_cores for sample in samples),
            "other_cores": max(sample.other_cores for sample in samples),
            "rss_mb": samples[-1].rss_mb,
        }
        for name, samples in taken.items()
    }
    add_multiples(figures, "us_per_token", PACED_BASE)
    return {"plan": msgspec.to_builtins(plan) | {"rounds": rounds, "base": PACED_BASE}, "servers": figures}


def in_turns(rig, rounds, measure):
    """Return ``{name: [a measurement a round]}``, the servers measured one after the other in every round."""
    taken: dict[str, list] = {name: [] for name in rig.names}
    for n in range(rounds):
        for name in rig.names:
            print(f"  round {n + 1} of {rounds}: {name}", flush=True)
            taken[name].append(measure(name))
    return taken


def whole(rig, name, plan):
    """Return a sample of streams that all ended well; figures of others would compare different work."""
    sample = sampling.take(rig, name, plan)
    assert sample.whole == plan.streams, f"{name}: {sample.whole} of {plan.streams} streams whole; {sample.problems}"
    return sample


def marginal(answers, single_tokens):
    return (answers.cpu_us - single_tokens.cpu_us) / (answers.tokens - single_tokens.tokens)


def steady_cost(sample, due):
    """Return the CPU per token of the plateau; of an overloaded server, which has none, of all it did."""
    return sample.plateau_us_per_token if sample.plateau_tokens >= due else sample.us_per_token


def add_multiples(figures, cost, base, *, of=None):
    """Add to each server's figures its ``cost`` as multiples of the base's ``of``, else of the same cost."""
    if base not in figures:
        return
    denominators = figures[base][of or cost]
    for server in figures.values():
        multiples = [value / below for value, below in zip(server[cost], denominators, strict=True)]
        server[cost.replace("us_per_token", "multiple")] = {
            "median": statistics.median(multiples),
            "min": min(multiples),
            "max": max(multiples),
        }
