"""Compares this server's streams with those of others, all fed by the same upstream, on one core each.

    just bench streams [--quick] [--only NAME,NAME] [--result FILE] [--readme FILE] [--plots FOLDER]

Measures an idle server; the CPU of a run without its tokens; CPU per token, unpaced and paced; and the most streams on
one core. The result is a JSON file, of which tables and plots are made. ``--quick`` shows in about a minute of a quiet
machine that all of it works; its figures mean nothing. Needs Linux, and a quiet machine with two cores.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.bench import experiments, figures, idle, ladder, run_cost
from tests.bench.contenders import CONTENDERS, Rig

OURS = ("stagecast", "stagecast_no_search", "stagecast_flush")
PACKAGES = ("uvicorn", "litestar", "fastapi", "sse-starlette", "litellm", "aiohttp", "uvloop")


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int = 3
    unpaced_streams: int = 10
    unpaced_tokens: int = 2_000
    paced_streams: int = 300
    plateau_s: float = 4.0
    rungs: tuple[int, ...] = ladder.RUNGS
    spreads_s: tuple[float, ...] = (10.0,)
    steady_s: float = ladder.STEADY_S
    runs: int = 100
    starts: int = 3
    with_llm: bool = True


QUICK = Sizes(
    rounds=1, unpaced_streams=3, unpaced_tokens=100, paced_streams=5, plateau_s=0.5, rungs=(2, 4), spreads_s=(0.2,),
    steady_s=0.3, runs=3, starts=1, with_llm=False,
)  # fmt: skip


def machine():
    """Return what the figures depend on besides the code."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {"cores": os.cpu_count(), "python": platform.python_version(), "packages": versions}


def measure(names, sizes, folder, keep):
    """Carry out all experiments; ``keep`` is called with the result so far after each."""
    result = {"machine": machine(), "sizes": msgspec.to_builtins(sizes)}
    idle_servers = idle.experiment(folder, starts=sizes.starts, with_llm=sizes.with_llm)  # no other is running yet
    with Rig(folder, names) as rig:
        result |= {"skipped": rig.skipped, "idle": idle_servers}
        print("warming up", flush=True)
        experiments.warm(rig)
        for title, carry_out in experiments_of(rig, sizes).items():
            print(title, flush=True)
            result[title] = carry_out()
            keep(result)
    return result


def experiments_of(rig, sizes):
    """Return the experiments with running servers, by their place in the result."""
    unpaced = {"streams": sizes.unpaced_streams, "tokens": sizes.unpaced_tokens}
    paced = {"streams": sizes.paced_streams, "plateau_s": sizes.plateau_s}
    climb = {"spreads_s": sizes.spreads_s, "rungs": sizes.rungs, "steady_s": sizes.steady_s}
    return {
        "run": lambda: run_cost.experiment(rig, sizes.runs),
        "unpaced": lambda: experiments.unpaced(rig, rounds=sizes.rounds, **unpaced),
        "paced": lambda: experiments.paced(rig, rounds=sizes.rounds, **paced),
        "ladder": lambda: ladder.climb(rig, **climb),
    }


def draw(result, folder):
    """Write the plots of a result."""
    from tests.bench import plots  # matplotlib is in the group `bench`, and the quick form goes without

    folder.mkdir(parents=True, exist_ok=True)
    costs = {name: statistics.median(s["marginal_us_per_token"]) for name, s in result["unpaced"]["servers"].items()}
    per_core = {name: 1e6 / cost for name, cost in sorted(costs.items(), key=lambda each: each[1])}
    plots.bars(folder / "tokens_per_core.svg", "Tokens a second on one core", "tokens/s", per_core, ours=OURS)
    for kind, limit, what in (("late", 100, "tokens late"), ("first", 250, "first token after")):
        for spread_s, climbed in result["ladder"]["spread_s"].items():
            series = {
                name: [(point["streams"], point[f"{kind}_p99_ms"]) for point in reached["points"]]
                for name, reached in climbed.items()
            }
            path = folder / f"{kind}_{spread_s}s.svg"
            title = f"p99 on one core, a token every 20 ms, streams {figures.begun(spread_s)}"
            plots.lines(path, title, "streams", f"{what}, ms", series, limit=limit, ours=OURS)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(CONTENDERS), metavar="NAMES")
    parser.add_argument("--result", type=Path, help="default: tests/bench/results/streams.json, if not quick")
    parser.add_argument("--readme", type=Path, help="a file whose figures are replaced")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="default: tests/bench/results, if not quick")
    given = parser.parse_args(arguments)
    if unknown := set(given.only) - set(CONTENDERS):
        parser.error(f"no server named {', '.join(sorted(unknown))}; there are: {', '.join(CONTENDERS)}")
    result_path = given.result or (None if given.quick else figures.FOLDER / "streams.json")
    plots_folder = given.plots or (None if given.quick else figures.FOLDER)

    def keep(result):
        if result_path:
            result_path.parent.mkdir(parents=True, exist_ok=True)
            result_path.write_text(json.dumps(result, indent=1) + "\n")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops the servers on the way out
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given.only, QUICK if given.quick else Sizes(), Path(folder), keep)
    print(figures.streams_markdown(result))
    if plots_folder:
        draw(result, plots_folder)
    if given.readme:
        figures.write(given.readme, "streams", figures.streams_markdown(result))


if __name__ == "__main__":
    main()
