"""How many streams a server carries on one core: more and more of them, until tokens and first tokens come too late."""

from tests.bench import load, sampling
from tests.bench.experiments import PACE_MS
from tests.bench.load import Plan, Script

RUNGS = (20, 50, 100, 200, 300, 400, 500, 600, 800)
LATE_LIMIT_MS = 100.0
FIRST_LIMIT_MS = 250.0
STEADY_S = 4.0
"""How long all streams are open together, once the last has begun."""


def climb(rig, *, spreads_s, rungs=RUNGS, steady_s=STEADY_S):
    """Return, for each way to begin, every server's points and the most streams that keep the limits.

    ``tokens`` is the most streams with whole answers and tokens at most 100 ms late (p99); ``streams`` the most whose
    first tokens come within 250 ms (p99) as well. ``rig`` stands for load and upstream without a server between them.
    """
    plan = {"interval_ms": PACE_MS, "late_limit_ms": LATE_LIMIT_MS, "first_limit_ms": FIRST_LIMIT_MS}
    names = ["rig", *rig.names]
    climbed = {
        f"{spread_s:g}": {name: server_climb(rig, name, spread_s, rungs, steady_s) for name in names}
        for spread_s in spreads_s
    }
    return {"plan": plan | {"rungs": list(rungs), "steady_s": steady_s}, "spread_s": climbed}


def server_climb(rig, name, spread_s, rungs, steady_s):
    points = []
    reached = {"tokens": 0, "streams": 0}
    for streams in rungs:
        print(f"  {name}: {streams} streams, begun over {spread_s:g} s", flush=True)
        tokens = round((spread_s + steady_s) * 1000 / PACE_MS)
        plan = Plan(script=Script(tokens, PACE_MS, PACE_MS), streams=streams, spread_s=spread_s, deadline_s=60)
        point = better_of_two(rig, name, plan)
        points.append(point)
        reached = {limit: further(rungs, so_far, point, limit) for limit, so_far in reached.items()}
        if not point["keeps_tokens"]:
            break
    return reached | {"points": points}


def further(rungs, so_far, point, limit):
    """Return the rung reached with this point: above one that failed nothing counts."""
    next_rung = next(rung for rung in rungs if rung > so_far)
    return next_rung if point[f"keeps_{limit}"] and point["streams"] == next_rung else so_far


def better_of_two(rig, name, plan):
    """Return a point, measured again if it missed a limit: the machine's noise fails a server and never helps it."""
    point = measured(rig, name, plan)
    if point["keeps_streams"]:
        return point
    again = measured(rig, name, plan)
    return max(point, again, key=lambda p: (p["keeps_streams"], p["keeps_tokens"], -(p["late_p99_ms"] or 1e9)))


def measured(rig, name, plan):
    if name == "rig":
        outcome = load.run(rig.upstream.target, plan)
        assert rig.upstream.falls_silent()
        late, first = sampling.quantiles_ms(outcome.late), sampling.quantiles_ms(outcome.first)
        return judged(plan, outcome.whole, late, first)
    sample = sampling.take(rig, name, plan)
    return judged(plan, sample.whole, sample.late_ms, sample.first_ms) | {"rig_cores": sample.rig_cores}


def judged(plan, whole, late, first):
    keeps_tokens = whole == plan.streams and late["p99"] < LATE_LIMIT_MS
    return {
        "streams": plan.streams,
        "whole": whole,
        "late_p99_ms": late.get("p99"),
        "first_p99_ms": first.get("p99"),
        "keeps_tokens": keeps_tokens,
        "keeps_streams": keeps_tokens and first["p99"] < FIRST_LIMIT_MS,
    }
