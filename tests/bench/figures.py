"""Writes measured figures into the README: what a benchmark's JSON says, as Markdown, between two markers.

    just bench figures

writes those that are kept in ``results``. The markers are lines of their own, ``<!-- figures:streams -->`` and
``<!-- /figures -->``, likewise for ``search``; what is between is replaced.
"""

import json
import re
from pathlib import Path

from tests.bench.contenders import CONTENDERS, ROOT
from tests.bench.experiments import UNPACED_BASE

FOLDER = Path(__file__).with_name("results")
SEARCHES = {
    "search_ms": "all documents",
    "owner_ms": "one owner's and everybody's",
    "filtered_ms": "filtered, 5 % pass",
}


class NoMarkers(ValueError):
    """A file has no place for figures."""

    def __init__(self, name):
        super().__init__(
            f"no lines <!-- figures:{name} --> and, behind it, <!-- /figures -->: put them where figures go"
        )


def written_between(markdown, name, figures):
    """Return the Markdown with ``figures`` between the markers of this name.

    Raises:
        NoMarkers: There are none.
    """
    place = re.compile(rf"(^<!-- figures:{re.escape(name)} -->\n).*?(^<!-- /figures -->$)", re.MULTILINE | re.DOTALL)
    replaced, found = place.subn(lambda markers: f"{markers[1]}{figures.strip()}\n{markers[2]}", markdown)
    if not found:
        raise NoMarkers(name)
    return replaced


def table(heads, rows):
    """Return a Markdown table; what is None is shown as a dash."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def number(value):
    """Return a number with two or three figures that count."""
    if value is None:
        return None
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(multiple):
    """Return a median with its range."""
    if multiple is None:
        return None
    return f"{number(multiple['median'])} ({number(multiple['min'])} to {number(multiple['max'])})"


def streams_markdown(result):
    """Return all tables of the comparison."""
    parts = [conditions(result), comparison(result), run_costs(result["run"]), idle_servers(result["idle"])]
    return "\n\n".join(parts)


def conditions(result):
    """Return what was measured, and how, with the numbers of this result."""
    unpaced, paced, ladder = (result[name]["plan"] for name in ("unpaced", "paced", "ladder"))
    late, first = (f"{ladder[limit]:g} ms" for limit in ("late_limit_ms", "first_limit_ms"))
    rungs = ", ".join(map(str, ladder["rungs"]))
    rig = ", ".join(f"{reached['rig']['streams']} {begun(s)}" for s, reached in result["ladder"]["spread_s"].items())
    skipped = f"Not installed here: {', '.join(result['skipped'])}." if result["skipped"] else ""
    return "\n".join(
        [
            "Each server alone on one core, upstream and readers on another; the servers in turns, "
            f"{unpaced['rounds']} rounds, multiples of the same round, median and range.",
            f"Unpaced: {unpaced['streams']} streams of {unpaced['script']['tokens']} tokens, as multiples of ASGI with "
            "a send a token; without the run around it: less the cost of as many streams of one token. CPU is that of "
            "the server's process.",
            f"Paced: {paced['streams']} streams open, a token every {paced['script']['interval_ms']} ms, as multiples "
            "of no ASGI; an overloaded server takes them in bunches, which makes each cheaper than it would be.",
            f"Streams: the most on one core whose tokens come at most {late} late and first tokens within {first} "
            f"(both p99), in brackets the most when only tokens count; rungs {rungs}; upstream and readers without a "
            f"server: {rig}.",
            f"Upstream and readers used at most {most(result, 'rig_cores'):.2f} of their core, and what else ran on "
            f"the machine {most(result, 'other_cores'):.2f} cores.",
            skipped,
        ]
    ).strip()


def most(result, key):
    """Return the most of a figure among all servers, unpaced and paced."""
    return max(figures[key] for part in ("unpaced", "paced") for figures in result[part]["servers"].values())


def begun(spread_s):
    return f"begun over {spread_s} s"


def comparison(result):
    ladders = result["ladder"]["spread_s"]
    heads = ["server", "CPU per token, unpaced", "without the run around it", "paced"]
    heads += [f"streams {begun(spread_s)}" for spread_s in ladders]
    rows = [comparison_row(result, name, ladders) for name in CONTENDERS if name in result["unpaced"]["servers"]]
    return table([*heads, "memory when paced, MB"], rows)


def comparison_row(result, name, ladders):
    unpaced, paced = (result[part]["servers"][name] for part in ("unpaced", "paced"))
    what = f"**{CONTENDERS[name].what}**" if name.startswith("stagecast") else CONTENDERS[name].what
    base = f"{number(min(unpaced['us_per_token']))} µs = " if name == UNPACED_BASE else ""
    overloaded = ", overloaded" if paced["overloaded"] else ""
    reached = [ladder[name] for ladder in ladders.values()]
    return [
        what,
        base + (spread(unpaced.get("multiple")) or "–"),
        spread(unpaced.get("marginal_multiple")),
        (spread(paced.get("multiple")) or "–") + overloaded,
        *(f"{climbed['streams']} ({climbed['tokens']})" for climbed in reached),
        number(paced["rss_mb"]),
    ]


def run_costs(run):
    heads = ["CPU of one question with one token, ms", "before `generation_start`", "asking the LLM"]
    heads += ["token, end, storing", "in all", "its PostgreSQL"]
    keys = ("before_generation", "asking_the_llm", "token_and_end", "total", "database")
    rows = [[CONTENDERS[name].what, *(number(costs[key]) for key in keys)] for name, costs in run["servers"].items()]
    alone = ", ".join(f"{part} {number(ms)} ms" for part, ms in run["alone"].items())
    return f"{table(heads, rows)}\n\nMeasured alone: {alone}."


def idle_servers(idle):
    heads = ["idle server", "first start, s", "ready, s", "of which imports, s", "memory, MB", "its PostgreSQL, MB"]
    names = {"extractive": "quotes, no LLM", "llm": "with `LLM_MODEL`"}
    keys = ("first_ready_s", "ready_s", "imports_s", "rss_mb", "database_mb")
    return table(heads, [[names[kind], *(number(figures[key]) for key in keys)] for kind, figures in idle.items()])


def search_markdown(result):
    """Return the table of searches by the size of the collection."""
    heads = ["chunks", *(f"{what}: p50, p99, ms" for what in SEARCHES.values())]
    heads += ["CPU without PostgreSQL's, ms", "nearest 10 found", "nearest 50 found"]
    rows = [
        [
            f"{size['chunks']:,}",
            *(f"{number(size[kind]['p50'])}, {number(size[kind]['p99'])}" for kind in SEARCHES),
            number(size["cpu_ms"]),
            *(f"{100 * size[recall]:g} %" for recall in ("recall@10", "recall@50")),
        ]
        for size in result["sizes"]
    ]
    return table(heads, rows)


def write(markdown_path, name, figures):
    """Replace the figures in a file.

    Raises:
        NoMarkers: It has no place for them.
    """
    markdown_path.write_text(written_between(markdown_path.read_text(), name, figures))


def main():
    for name, markdown in {"streams": streams_markdown, "search": search_markdown}.items():
        write(ROOT / "README.md", name, markdown(json.loads((FOLDER / f"{name}.json").read_text())))


if __name__ == "__main__":
    main()
