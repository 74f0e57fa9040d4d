"""What a figure is made of, whichever way it is drawn: panels with lines, points and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune_lm.analysis.token_passes import Floats

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Those of Okabe and Ito (2008), which the colour-blind can tell, without yellow, which is faint on
white."""

UNDIVIDED = -1
"""The style of what is not told apart from anything."""

N_DASHES = 3
"""Solid, dashed and dotted, after which colours come again."""

MOST_NAMES = len(COLOURS) * N_DASHES
"""So many lines of one panel can be told apart."""

LINE, POINTS, INTERVALS = "line", "points", "intervals"


@dataclass(frozen=True)
class Series:
    """A line, or a set of points.

    Attributes:
        name: As the legend has it.
        style: Its number among the names of the figure, which says its colour and dashes.
        kind: ``line`` with a band from ``low`` to ``high``; ``points``; ``intervals``, points with
            bars from ``low`` to ``high`` along x, whose y is a place among the panel's categories.
        x: Where: (n,).
        y: What is there: (n,).
        low: The lower end of the interval, NaN for none: (n,); None if there is none at all.
        high: The upper end likewise.
        texts: What is said of each point beside its numbers.
    """

    name: str
    style: int
    kind: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    texts: Sequence[str] = ()

    @property
    def colour(self) -> str:
        """Its colour."""
        if self.style == UNDIVIDED:
            return "#555555"
        return COLOURS[self.style % len(COLOURS)]

    @property
    def dash(self) -> int:
        """The number of its dashes."""
        return max(self.style, 0) // len(COLOURS) % N_DASHES


@dataclass(frozen=True)
class Panel:
    """A pair of axes.

    Attributes:
        title: What stands above; empty for nothing.
        series: What is drawn.
        x_label: What x is, with its unit.
        y_label: What y is, with its unit.
        scale: Panels of the same scale have the same y axis.
        marks: Where a vertical line stands: the best epoch.
        level: Where a horizontal line stands, such as chance.
        is_square: Whether both axes are the same, with a diagonal.
        categories: The names of the places on the y axis, if it is not numbers.
        x_ends: The ends of the x axis, if they do not follow from the values.
    """

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    scale: str = ""
    marks: Sequence[float] = ()
    level: float | None = None
    is_square: bool = False
    categories: Sequence[str] = ()
    x_ends: tuple[float, float] | None = None

    def y_limits(self) -> tuple[float, float]:
        """From where to where its values go."""
        parts = [part for each in self.series for part in (each.y, each.low, each.high)]
        if self.is_square:
            parts += [each.x for each in self.series]
        if self.level is not None:
            parts.append(np.array([self.level]))
        values = np.concatenate([np.asarray(part, float) for part in parts if part is not None])
        values = values[np.isfinite(values)]
        return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)


@dataclass(frozen=True)
class Figure:
    """A figure with its data.

    Attributes:
        stem: The name of its files.
        title: What it shows.
        caption: How to read it.
        panels: Its panels, row by row.
        frame: Its data.
        n_columns: How many panels stand beside each other.
    """

    stem: str
    title: str
    caption: str
    panels: Sequence[Panel]
    frame: pd.DataFrame
    n_columns: int = 2

    @property
    def names(self) -> dict[str, Series]:
        """One series for each name of the legend, in the order of their styles."""
        found: dict[str, Series] = {}
        for panel in self.panels:
            for series in panel.series:
                found.setdefault(series.name, series)
        return dict(sorted(found.items(), key=lambda each: each[1].style))

    def y_limits(self, panel: Panel) -> tuple[float, float]:
        """The ends of a panel's y axis, with room, the same for all panels of its scale."""
        limits = [
            each.y_limits()
            for each in self.panels
            if each is not BLANK and each.scale == panel.scale
        ]
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        room = (high - low) * 0.06 or 0.5
        return low - room, high + room


BLANK = Panel("", (), "", "")
"""Nothing, where a setting has not what the others have."""


def stand_side_by_side(n_settings: int) -> bool:
    """Whether settings are columns: a few are."""
    return 1 < n_settings <= 4


def columns_for(n_panels: int, n_settings: int) -> int:
    """How many panels stand beside each other: settings do, if they are few.

    Example:
        >>> [columns_for(n, settings) for n, settings in ((1, 1), (4, 1), (17, 1), (6, 3), (9, 9))]
        [1, 2, 3, 3, 3]
    """
    if stand_side_by_side(n_settings):
        return n_settings
    return min(n_panels, 2 if n_panels <= 4 else 3)
