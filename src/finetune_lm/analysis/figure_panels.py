"""Panels with lines over epochs: what the figures of tokens have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.analysis.figure_parts import (
    BLANK,
    LINE,
    MOST_NAMES,
    UNDIVIDED,
    Panel,
    Series,
    stand_side_by_side,
)
from finetune_lm.analysis.report_frames import (
    DATASET,
    HIGH,
    LOW,
    SETTING,
    VALUE,
    Results,
    X,
    is_undivided,
    over_runs,
    parts,
)
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

EPOCHS = "epochs of training"
ALL = "all sentences"
MOST_PANELS = 60
COLUMNS = {VALUE: VALUE, LOW: LOW, HIGH: HIGH}
"""Where a mean and its interval are, as `over_runs` is told."""

_BAND = {
    False: "Bands are 95 % intervals of the mean over sentences",
    True: "Bands are 95 % intervals of the mean over seeds; a line ends where the first of its "
    "runs does",
}


def panels_of(
    results: Results,
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    y_label: str,
    level: float | None = None,
) -> list[Panel]:
    """A panel for each data set, combination of all conditions but the last, and setting.

    Without conditions there is one for each setting, and a line for each data set.
    """
    names = results.conditions.names
    means = over_runs(frame, [*DATASET, *names], columns)
    means["_dataset"] = [
        dataset_title(*row) for row in means[list(DATASET)].itertuples(index=False)
    ]
    if not names:
        order = list(dict.fromkeys(means["_dataset"]))
        _check_names(order, "data sets")
        undivided = {
            ((), setting): Panel(
                setting,
                list(lines_of(part, "_dataset", order)),
                EPOCHS,
                y_label,
                marks=best_epoch_of(results, setting),
                level=level,
            )
            for setting, part in parts(means, SETTING)
        }
        return in_rows(results, undivided)
    order = order_of(results, means)
    panels = {
        (key[:-1], key[-1]): Panel(
            panel_title(*([key[0]] if is_undivided(key[1:-1]) else key[:-1]), key[-1]),
            list(lines_of(part, names[-1], order)),
            EPOCHS,
            y_label,
            "all",
            best_epoch_of(results, key[-1]),
            level,
        )
        for key, part in parts(means, "_dataset", *names[:-1], SETTING)
    }
    if len(panels) > MOST_PANELS:
        raise UserError(
            f"--by must ask for at most {MOST_PANELS} panels in a figure but {' '.join(names)} "
            f"asks for {len(panels)}. The values of the last column are lines of one panel: name "
            f"that with the most values last, or fewer columns."
        )
    return in_rows(results, panels)


def in_rows(results: Results, found: Mapping[tuple[Any, str], Panel]) -> list[Panel]:
    """Panels row by row, so that settings, if they are few, stand beside each other.

    Args:
        results: What the runs have come to.
        found: The panel of each row and setting.
    """
    settings = [group.name for group in results.groups]
    rows = dict.fromkeys(row for row, _ in found)
    panels = [found.get((row, setting)) for row in rows for setting in settings]
    if stand_side_by_side(len(settings)):
        return [BLANK if panel is None else panel for panel in panels]
    return [panel for panel in panels if panel is not None]


def order_of(results: Results, frame: pd.DataFrame) -> list[str]:
    """The values of the last condition, as they were met: each has one colour in all figures."""
    if not results.conditions.names:
        return []
    met = dict.fromkeys(values[-1] for values in results.conditions.values)
    order = [name for name in met if not is_undivided([name])]
    there = set(frame[results.conditions.names[-1]]).intersection(order)
    _check_names(there, f"values of {results.conditions.names[-1]}")
    return order


def _check_names(names: Collection[str], what: str) -> None:
    if len(names) > MOST_NAMES:
        raise UserError(
            f"--by must name a column last that has at most {MOST_NAMES} values, which can be told "
            f"apart as lines of a figure, but there are {len(names)} {what}."
        )


def lines_of(
    frame: pd.DataFrame, column: str, order: Sequence[str], shift: int = 0
) -> Iterator[Series]:
    """A line for each value of a column."""
    for name, part in parts(frame, column):
        style = order.index(name) + shift if name in order else UNDIVIDED
        label = ALL if is_undivided([name]) else str(name)
        yield series_of(label, style, LINE, part)


def series_of(name: str, style: int, kind: str, part: pd.DataFrame, places: Any = None) -> Series:
    """A series of the rows of `over_runs`, along x at places of its own if these are given."""
    low, high = part[LOW].to_numpy(float), part[HIGH].to_numpy(float)
    mean, x = part["mean"].to_numpy(float), part[X].to_numpy(float)
    if places is not None:
        return Series(name, style, kind, mean, places, low, high)
    return Series(name, style, kind, x, mean, low, high)


def with_several_passes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows about data that were measured more than once."""
    if frame.empty:
        return frame
    n = frame.groupby(["run", *DATASET])[X].transform("nunique")
    found: pd.DataFrame = frame[n > 1]
    return found


def best_epoch_of(results: Results, setting: str) -> list[float]:
    """After how many epochs the best model was reached, where there is one run."""
    runs = [
        results.runs[place].files for g in results.groups if g.name == setting for place in g.runs
    ]
    return (
        [run.best_epoch + 1.0 for run in runs if run.best_epoch is not None][:1]
        if len(runs) == 1
        else []
    )


def band_of(results: Results) -> str:
    """What the bands of a figure are."""
    return _BAND[any(results.has_seeds(group.name) for group in results.groups)]


def dataset_title(dataset_type: str, name: str) -> str:
    """What a data set is called in figures."""
    return f"{name} ({dataset_type})"


def condition_label(values: Sequence[str]) -> str:
    """What a condition is called in figures."""
    return ALL if is_undivided(values) else ", ".join(values)


def panel_title(*parts: str) -> str:
    """A title of those parts that say something."""
    return " · ".join(part for part in parts if part)
