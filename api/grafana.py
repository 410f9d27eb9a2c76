"""Panels in the form that Grafana imports. Nothing here knows what they show."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

COLUMNS, ABREAST, HEIGHT = 24, 3, 8
"""Of Grafana's grid; how many panels stand side by side at most; how high one is."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
"""The one that is chosen on the dashboard."""


class Query(msgspec.Struct, frozen=True):
    """A question in PromQL, and what each line of its answer is called."""

    promql: str
    legend: str


class Panel(msgspec.Struct, frozen=True):
    """Lines over time, of one unit."""

    title: str
    description: str
    unit: str
    """Grafana's name for it."""
    queries: list[Query]
    stacked: bool = False
    logarithmic: bool = False
    """For numbers of several orders of magnitude, none of them 0."""
    limit: float | None = None
    """Drawn as a line across."""
    colors: Mapping[str, str] = {}
    """Of lines that mean good or bad."""


def dashboard(name: str, instances: str, rows: Mapping[str, list[Panel]]) -> str:
    """Return a dashboard as JSON, for Grafana 10 or newer; it replaces one of its name that was imported before.

    ``instances``: a metric that every instance has which may be chosen.
    """
    model = {
        "uid": name.lower(),
        "title": name,
        "tags": [name.lower()],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,  # the moment under the pointer is marked in all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables(f"label_values({instances}, instance)")},
        "panels": _placed(rows),
    }
    return msgspec.json.format(msgspec.json.encode(model), indent=2).decode()


def _variables(instances: str) -> list[dict[str, object]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "label": "Instance",
            "type": "query",
            "datasource": SOURCE,
            "definition": instances,
            "query": {"qryType": 1, "query": instances, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "refresh": 2,  # whenever another time is looked at
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]


def _placed(rows: Mapping[str, list[Panel]]) -> list[dict[str, object]]:
    """Put the rows below each other, the panels of each side by side; a row that is too long goes on below."""
    placed: list[dict[str, object]] = []
    y = 0
    for title, panels in rows.items():
        grid = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        placed.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": grid})
        abreast = min(len(panels), ABREAST)
        width = COLUMNS // abreast
        for n, panel in enumerate(panels):
            line, place = divmod(n, abreast)
            grid = {"x": place * width, "y": y + 1 + line * HEIGHT, "w": width, "h": HEIGHT}
            placed.append(_shown(panel) | {"gridPos": grid})
        y = grid["y"] + HEIGHT
    return [{"id": n} | panel for n, panel in enumerate(placed, 1)]


def _shown(panel: Panel) -> dict[str, object]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [_target(ref_id, query) for ref_id, query in zip("ABCDEF", panel.queries, strict=False)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_colored(*one) for one in panel.colors.items()]},
        "options": {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _target(ref_id: str, query: Query) -> dict[str, object]:
    return {
        "refId": ref_id,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.promql,
        "legendFormat": query.legend,
        "range": True,
    }


def _defaults(panel: Panel) -> dict[str, object]:
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    beginning: dict[str, object] = {} if panel.logarithmic else {"min": 0}
    return beginning | {
        "unit": panel.unit,
        "color": {"mode": "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 0,
            "showPoints": "auto",
            "scaleDistribution": {"type": "log", "log": 10} if panel.logarithmic else {"type": "linear"},
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "line"},
        },
    }


def _colored(line: str, color: str) -> dict[str, object]:
    fixed = {"id": "color", "value": {"mode": "fixed", "fixedColor": color}}
    return {"matcher": {"id": "byName", "options": line}, "properties": [fixed]}
