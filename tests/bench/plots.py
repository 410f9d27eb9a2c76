"""Plots as small SVG files: bars of one number each, and lines over a growing load or collection."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

OURS = "#0b6bcb"
OTHERS = "#9aa5b1"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "stagecast", "font.family": "sans-serif", "font.size": 9}
"""Text stays text, and the same figures make the same file."""


def bars(path, title, unit, values, *, ours=()):
    """Draw a bar for each of ``{name: value}``, in their order from above; those in ``ours`` stand out."""
    with mpl.rc_context(STYLE):
        figure, axes = made(title, height=0.6 + 0.3 * len(values))
        drawn = axes.barh(list(values), list(values.values()), color=[OURS if n in ours else OTHERS for n in values])
        axes.bar_label(drawn, fmt="{:,.0f}", padding=3)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        save(figure, path)


def lines(path, title, x_label, y_label, series, *, limit=None, log_x=False, ours=()):
    """Draw a line for each of ``{name: [(x, y), ...]}``, y on a logarithmic scale, and ``limit`` as a dashed one."""
    with mpl.rc_context(STYLE):
        figure, axes = made(title, height=3.6)
        axes.set_prop_cycle(color=[*mpl.colormaps["tab10"].colors, "black"])  # one more, so that none comes twice
        for name, points in series.items():
            width = 2.5 if name in ours else 1.2
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=width, label=name)
        if limit is not None:
            axes.axhline(limit, linestyle="--", color="#c0392b", linewidth=1)
        axes.set(xlabel=x_label, ylabel=y_label, yscale="log", xscale="log" if log_x else "linear")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        if log_x:
            places = sorted({x for points in series.values() for x, _ in points})
            axes.set_xticks(places, [f"{x:,}" for x in places])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        save(figure, path)


def made(title, height):
    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure, path):
    figure.savefig(path, format="svg", metadata={"Date": None})
