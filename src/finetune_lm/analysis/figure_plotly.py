"""Figures drawn for a browser: what plotly.js is given."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from finetune_lm.analysis.figure_parts import BLANK, INTERVALS, LINE, POINTS, Figure, Panel, Series
from finetune_lm.analysis.token_passes import Floats

_MOST_PLACES = 400
"""Of longer lines as many points, evenly spaced: a screen shows no more."""

_DASHES = ("solid", "dash", "dot")
_MARKERS = ("circle", "square", "triangle-up")
_GAP_X, _LEFT, _RIGHT = 0.09, 64, 12
_TOP, _TITLE_LINE, _BELOW = 34, 17, 50
"""Pixels above all panels (the legend), for each line of a title, and below each panel."""

_PAGE_LETTERS = 120
"""So many letters of a title go across the page."""


def as_plotly(figure: Figure) -> dict[str, Any]:
    """What ``Plotly.newPlot`` takes.

    Returns:
        ``data`` and ``layout``, in plain types. Names come escaped, since plotly takes text for
        HTML.
    """
    n_columns = figure.n_columns
    rows = [figure.panels[i : i + n_columns] for i in range(0, len(figure.panels), n_columns)]
    heights = [max(_height(panel, n_columns) for panel in row) for row in rows]
    legend_rows = 1 + sum(len(name) + 8 for name in figure.names) // 110
    top = _TOP * legend_rows
    titles = [max(_title(p, n_columns).count("<br>") + 1 for p in row) for row in rows]
    above = [10 + _TITLE_LINE * n_lines for n_lines in titles]
    total = top + sum(above) + sum(height + _BELOW for height in heights)
    layout: dict[str, Any] = {
        "height": total,
        "margin": {"l": _LEFT, "r": _RIGHT, "t": 0, "b": 0},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "top", "traceorder": "normal"},
        "showlegend": len(figure.names) > 1,
        "hovermode": "closest",
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#222222"},
        "annotations": [],
        "shapes": [],
    }
    data: list[dict[str, Any]] = []
    told: set[str] = set()
    down = top
    number = 0
    for row, height, over in zip(rows, heights, above, strict=True):
        down += over
        for column, panel in enumerate(row):
            if panel is BLANK:
                continue
            number += 1
            domain = {
                "x": _span(column, n_columns),
                "y": [1 - (down + height) / total, 1 - down / total],
            }
            _add_axes(layout, figure, panel, number, domain)
            for series in panel.series:
                data += _traces(series, number, told, panel)
        down += height + _BELOW
    return {"data": data, "layout": layout}


def _height(panel: Panel, n_columns: int) -> int:
    if panel.categories:
        return 30 + 24 * len(panel.categories)
    if panel.is_square:
        return {1: 460, 2: 400}.get(n_columns, 280)
    return {1: 320, 2: 260}.get(n_columns, 210)


def _title(panel: Panel, n_columns: int) -> str:
    lines = wrap(panel.title, _PAGE_LETTERS // n_columns - 4) or [""]
    return "<br>".join(map(_text, lines))


def _span(column: int, n_columns: int) -> list[float]:
    width = (1 - _GAP_X * (n_columns - 1)) / n_columns
    begin = column * (width + _GAP_X)
    return [round(begin, 5), round(min(begin + width, 1.0), 5)]


def _add_axes(
    layout: dict[str, Any], figure: Figure, panel: Panel, number: int, domain: dict[str, Any]
) -> None:
    low, high = figure.y_limits(panel)
    common = {"showline": True, "linecolor": "#888888", "gridcolor": "#e6e6e6", "zeroline": False}
    x_axis = {
        **common,
        "domain": domain["x"],
        "anchor": f"y{number}",
        "title": {"text": _text(panel.x_label), "standoff": 6},
        "automargin": False,
    }
    y_axis = {
        **common,
        "domain": domain["y"],
        "anchor": f"x{number}",
        "title": {"text": _text(panel.y_label), "standoff": 6},
        "range": [low, high],
    }
    if panel.categories:
        names = [name if len(name) <= 60 else f"{name[:59]}…" for name in panel.categories]
        y_axis |= {
            "tickvals": list(range(len(names))),
            "ticktext": [_text(name) for name in names],
            "range": [len(names) - 0.5, -0.5],
            "automargin": True,
        }
    elif panel.is_square:
        x_axis["range"] = [low, high]
        y_axis |= {"scaleanchor": f"x{number}", "constrain": "domain"}
        x_axis["constrain"] = "domain"
    if panel.x_ends is not None:
        x_axis["range"] = list(panel.x_ends)
    axes = {"xref": f"x{number}", "yref": f"y{number}"}
    layout[f"xaxis{number}"], layout[f"yaxis{number}"] = x_axis, y_axis
    layout["annotations"].append(
        {
            "text": f"<b>{_title(panel, figure.n_columns)}</b>",
            "align": "left",
            "x": domain["x"][0],
            "y": domain["y"][1],
            "xref": "paper",
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 12},
        }
    )
    line = {"type": "line", "layer": "below", "line": {"color": "#777777", "width": 1}}
    if panel.is_square:
        layout["shapes"].append({**line, **axes, "x0": low, "x1": high, "y0": low, "y1": high})
    if panel.level is not None:
        ends = {"x0": 0, "x1": 1, "y0": panel.level, "y1": panel.level}
        layout["shapes"].append({**line, **axes, "xref": f"x{number} domain", **ends})
    for mark in panel.marks:
        dotted = {"line": {"color": "#777777", "width": 1, "dash": "dot"}}
        ends = {"x0": mark, "x1": mark, "y0": 0, "y1": 1}
        layout["shapes"].append({**line, **dotted, **axes, "yref": f"y{number} domain", **ends})


def _traces(series: Series, number: int, told: set[str], panel: Panel) -> list[dict[str, Any]]:
    name = _text(series.name)
    common = {
        "type": "scatter",
        "xaxis": f"x{number}",
        "yaxis": f"y{number}",
        "name": name,
        "meta": name,
        "legendgroup": name,
        "showlegend": series.name not in told,
        "legendrank": 1000 + series.style,
    }
    told.add(series.name)
    return {LINE: _line, POINTS: _points, INTERVALS: _intervals}[series.kind](series, common)


def _line(series: Series, common: dict[str, Any]) -> list[dict[str, Any]]:
    places = _thinned(len(series.x))
    x, y = series.x[places], series.y[places]
    line = {"color": series.colour, "dash": _DASHES[series.dash], "width": 2}
    traces = []
    template = "%{meta}<br>after %{x:.4~g} epochs: %{y:.4~g}"
    trace = {
        **common,
        "x": _numbers(x),
        "y": _numbers(y),
        "mode": "lines+markers" if len(x) <= 60 else "lines",
        "line": line,
        "marker": {"size": 5, "symbol": _MARKERS[series.dash]},
    }
    if series.low is not None and series.high is not None:
        low, high = series.low[places], series.high[places]
        there = np.isfinite(low) & np.isfinite(high)
        if there.any():
            traces.append(
                {
                    **common,
                    "showlegend": False,
                    "x": _numbers(np.concatenate([x[there], x[there][::-1]])),
                    "y": _numbers(np.concatenate([low[there], high[there][::-1]])),
                    "mode": "lines",
                    "line": {"width": 0, "color": series.colour},
                    "fill": "toself",
                    "fillcolor": _faint(series.colour),
                    "hoverinfo": "skip",
                }
            )
            template += " (%{customdata[0]:.4~g} to %{customdata[1]:.4~g})"
            trace["customdata"] = [
                list(pair) for pair in zip(_numbers(low), _numbers(high), strict=True)
            ]
    return [*traces, {**trace, "hovertemplate": template + "<extra></extra>"}]


def _points(series: Series, common: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **common,
            "x": _numbers(series.x),
            "y": _numbers(series.y),
            "mode": "markers",
            "marker": {
                "color": series.colour,
                "symbol": _MARKERS[series.dash],
                "size": 5,
                "opacity": 0.55,
            },
            "text": [_text(text) for text in series.texts],
            "hovertemplate": "%{text}<br>before %{x:.2f}, after %{y:.2f}<extra>%{meta}</extra>",
        }
    ]


def _intervals(series: Series, common: dict[str, Any]) -> list[dict[str, Any]]:
    shift = 0.12 * ((series.style % 5) - 2) if series.style else 0.0
    trace = {
        **common,
        "x": _numbers(series.x),
        "y": _numbers(series.y + shift),
        "mode": "markers",
        "marker": {"color": series.colour, "symbol": _MARKERS[series.dash], "size": 8},
        "hovertemplate": "%{meta}: %{x:.4~g}<extra></extra>",
    }
    if series.low is not None and series.high is not None:
        trace["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": _numbers(series.high - series.x),
            "arrayminus": _numbers(series.x - series.low),
            "color": series.colour,
            "thickness": 1.5,
        }
        trace["customdata"] = [
            list(pair) for pair in zip(_numbers(series.low), _numbers(series.high), strict=True)
        ]
        trace["hovertemplate"] = (
            "%{meta}: %{x:.4~g} (%{customdata[0]:.4~g} to %{customdata[1]:.4~g})<extra></extra>"
        )
    return [trace]


def _thinned(n: int) -> Any:
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_PLACES)).round().astype(int))


def _numbers(values: Floats) -> list[float | None]:
    """Numbers as JSON has them, with as many digits as can be seen."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"


def _text(text: str) -> str:
    """A text that plotly shows as it is: it takes some HTML, knows few names, and fills in %{}."""
    return escape(text, quote=False).replace("%{", "%&#123;")
