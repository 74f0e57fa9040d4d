"""Figures drawn for print: PDF, by matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from finetune_lm.analysis.figure_parts import BLANK, INTERVALS, LINE, POINTS, Figure, Panel, Series
from finetune_lm.whole_files import write_whole

_WIDTH = 7.2
"""Inches: a page's text."""

_ROWS_ON_A_PAGE = 5
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")
_FEW = 40
_STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters that can be edited, and that journals take
}


def save_pdf(path: Path, figures: Sequence[Figure]) -> None:
    """Draw figures, a page each or more.

    Args:
        path: The file.
        figures: The figures; one at least.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages

    with write_whole(path) as aside, mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Of letters that the font lacks, which become boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # Without a date, so that equal results leave equal files.
        with PdfPages(aside, metadata={"CreationDate": None}) as pages:
            for figure in figures:
                for page in _pages(figure):
                    pages.savefig(page)


def _pages(figure: Figure) -> Iterator[Any]:
    n = figure.n_columns * _ROWS_ON_A_PAGE
    for begin in range(0, len(figure.panels), n):
        yield _drawn(figure, figure.panels[begin : begin + n])


def _drawn(figure: Figure, panels: Sequence[Panel]) -> Any:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure as Canvas

    n_rows = -(-len(panels) // figure.n_columns)
    names = figure.names
    n_in_row = max(1, min(4, 90 // (max(map(len, names), default=1) + 6)))
    height = sum(
        max(_height(panel, figure.n_columns) for panel in panels[i : i + figure.n_columns])
        for i in range(0, len(panels), figure.n_columns)
    )
    title = f"{figure.title}\n{fill(figure.caption, 125)}"
    around = 0.16 * -(-len(names) // n_in_row) + 0.15 * (title.count("\n") + 1)
    canvas = Canvas(figsize=(_WIDTH, height + 0.3 + around), layout="constrained")
    FigureCanvasPdf(canvas)
    axes = canvas.subplots(n_rows, figure.n_columns, squeeze=False).ravel()
    n_left = len(axes) - len(panels)
    for axis, panel in zip(axes, [*panels, *[BLANK] * n_left], strict=True):
        if panel is BLANK:
            axis.set_axis_off()
        else:
            _draw(axis, figure, panel)
    canvas.suptitle(_plain(title), fontsize=8, x=0.02, ha="left")
    if len(names) > 1:
        canvas.legend(
            [_key(series) for series in names.values()],
            [_plain(name) for name in names],
            loc="outside lower center",
            ncols=n_in_row,
            fontsize=7,
        )
    return canvas


def _height(panel: Panel, n_columns: int) -> float:
    if panel.categories:
        return 0.7 + 0.2 * len(panel.categories)
    return (2.9 if panel.is_square else 2.1) if n_columns < 3 else 1.8


def _draw(axis: Any, figure: Figure, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = figure.y_limits(panel)
    if panel.level is not None:
        axis.axhline(panel.level, color="0.4", linewidth=0.8, zorder=1)
    for mark in panel.marks:
        axis.axvline(mark, color="0.5", linewidth=0.8, linestyle=":", zorder=1)
    for series in panel.series:
        _DRAWN[series.kind](axis, series)
    axis.set_title(_plain(fill(panel.title, 108 // figure.n_columns)), loc="left")
    axis.set_xlabel(_plain(panel.x_label))
    axis.set_ylabel(_plain(panel.y_label))
    if panel.x_ends is not None:
        axis.set_xlim(*panel.x_ends)
    if panel.categories:
        names = [_plain(name if len(name) <= 60 else f"{name[:59]}…") for name in panel.categories]
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        return
    axis.set_ylim(low, high)
    if panel.is_square:
        axis.set_xlim(low, high)
        axis.set_aspect("equal")
        axis.plot([low, high], [low, high], color="0.4", linewidth=0.8, zorder=1)
    else:
        axis.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def _line(axis: Any, series: Series) -> None:
    if series.low is not None and series.high is not None:
        there = np.isfinite(series.low) & np.isfinite(series.high)
        axis.fill_between(
            series.x[there],
            series.low[there],
            series.high[there],
            color=series.colour,
            alpha=0.18,
            linewidth=0,
        )
    marker = _MARKERS[series.dash] if len(series.x) <= _FEW else None
    style = {"linestyle": _DASHES[series.dash], "linewidth": 1.2}
    axis.plot(series.x, series.y, color=series.colour, marker=marker, markersize=2.5, **style)


def _points(axis: Any, series: Series) -> None:
    marker = _MARKERS[series.dash]
    style = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.5, "rasterized": len(series.x) > 400}
    axis.plot(series.x, series.y, marker, color=series.colour, **style)


def _intervals(axis: Any, series: Series) -> None:
    low, high = (
        np.zeros(len(series.x)) if end is None else np.nan_to_num(np.abs(end - series.x))
        for end in (series.low, series.high)
    )
    shift = 0.12 * ((series.style % 5) - 2) if series.style else 0.0
    axis.errorbar(
        series.x,
        series.y + shift,
        xerr=[low, high],
        fmt=_MARKERS[series.dash],
        color=series.colour,
        markersize=3.5,
        linewidth=1,
    )


_DRAWN = {LINE: _line, POINTS: _points, INTERVALS: _intervals}


def _key(series: Series) -> Any:
    """What stands for a series in the legend."""
    from matplotlib.lines import Line2D

    is_line = series.kind == LINE
    return Line2D(
        [],
        [],
        color=series.colour,
        linestyle=_DASHES[series.dash] if is_line else "none",
        marker=None if is_line else _MARKERS[series.dash],
        markersize=4,
    )


def _plain(text: str) -> str:
    """A text in which no dollar sign begins a formula."""
    return text.replace("$", r"\$")
