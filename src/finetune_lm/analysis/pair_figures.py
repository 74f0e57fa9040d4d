"""The figures about minimal pairs: accuracy and differences, over epochs or at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.analysis.figure_parts import (
    COLOURS,
    INTERVALS,
    LINE,
    Figure,
    Panel,
    Series,
    columns_for,
)
from finetune_lm.analysis.report_frames import (
    HIGH,
    LOW,
    RUN,
    SETTING,
    VALUE,
    Results,
    X,
    over_runs,
    parts,
    rows_of,
)
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.analysis.token_passes import PassKey, in_mode
from finetune_lm.recording.columns import MODE, has_modes

if TYPE_CHECKING:
    import pandas as pd

EPOCHS = "epochs of training"
_ACCURACY = "accuracy"
_LABEL = "_label"
_DATASET = ("dataset_type", "dataset_name")


def pairs_frame(results: Results) -> pd.DataFrame:
    """The summaries of minimal pairs of all runs: a row for each run, pass and phenomenon."""
    import pandas as pd

    frames = []
    for place, run in enumerate(results.runs):
        for path in run.files.pair_summaries:
            frame = pd.read_csv(path, keep_default_na=False, na_values=["NA"])
            frame = frame.drop(columns=["seed"], errors="ignore")
            if has_modes(list(frame.columns)):
                modes = frame.pop(MODE)
                frame["dataset_name"] = list(map(in_mode, frame["dataset_name"], modes))
            frame.insert(0, RUN, run.files.name)
            frame.insert(1, SETTING, results.setting_of(place))
            frame.insert(2, "seed", run.files.seed)
            frame[X] = [_epochs(run, row) for row in rows_of(frame)]
            frames.append(frame)
    if not frames:
        return pd.DataFrame()
    found = pd.concat(frames, ignore_index=True)
    found[_LABEL] = [_label(row) for row in rows_of(found)]
    return found


def pair_figures(results: Results, frame: pd.DataFrame | None = None) -> list[Figure]:
    """Accuracy, and the mean difference in bits.

    Args:
        results: What the runs have come to.
        frame: What `pairs_frame` made of them, if it was called already.
    """
    frame = pairs_frame(results) if frame is None else frame
    if frame.empty:
        return []
    scored = frame[frame["accuracy"].notna()]
    figures = [
        *_figures(
            results,
            scored.assign(**{VALUE: scored["accuracy"]}),
            "accuracy",
            "Accuracy in minimal pairs",
            "The share of pairs of which the better sentence is the likelier one, ties counted one "
            "half. A line marks .5. {intervals}",
            0.5,
        )
    ]
    differing = frame[frame["mean_difference"].notna()]
    half = 1.96 * differing["se"]
    figures += _figures(
        results,
        differing.assign(
            **{
                VALUE: differing["mean_difference"],
                LOW: differing["mean_difference"] - half,
                HIGH: differing["mean_difference"] + half,
            }
        ),
        "difference",
        "Mean difference of pairs and contrasts",
        "By how many bits the worse sentence of a pair costs more than the better one, and what "
        "contrasts come to. {intervals}",
        0.0,
    )
    return figures


def _figures(
    results: Results,
    frame: pd.DataFrame,
    quantity: str,
    title: str,
    caption: str,
    level: float,
) -> list[Figure]:
    """One figure about data that were measured again and again, and one about the others."""
    found = []
    n = frame.groupby([RUN, *_DATASET, _LABEL], dropna=False)[X].transform("nunique")
    intervals = {
        "accuracy": "Intervals are Wilson's, at 95 %",
        "difference": "Intervals are 95 % over items",
    }[quantity]
    seeds = any(results.has_seeds(group.name) for group in results.groups)
    intervals += ", and over seeds where there are several runs." if seeds else "."
    axis = {"accuracy": _ACCURACY, "difference": "difference (bits)"}[quantity]
    for part, make, suffix, said in (
        (frame[n > 1], _over_epochs, "", " over epochs"),
        (frame[n == 1], _at_the_end, "_tests", " in tests"),
    ):
        if part.empty:
            continue
        panels = make(results, part, axis, level)
        found.append(
            Figure(
                quantity + suffix,
                title + said,
                caption.format(intervals=intervals),
                panels,
                part.drop(columns=[_LABEL]),
                columns_for(len(panels), 1) if not suffix else 1,
            )
        )
    return found


def _over_epochs(results: Results, frame: pd.DataFrame, axis: str, level: float) -> list[Panel]:
    """A panel for each data set and setting; of many phenomena one for each phenomenon."""
    means = _means(frame)
    labels = list(dict.fromkeys(means[_LABEL]))
    lines = [key for key, _ in parts(means, _DATASET[1], SETTING)]
    if len(labels) <= len(COLOURS):
        return [
            Panel(
                " · ".join(filter(None, [f"{name} ({kind})", setting])),
                [
                    _line(str(label), labels.index(label), of_label)
                    for label, of_label in parts(part, _LABEL)
                ],
                EPOCHS,
                axis,
                "all",
                _best(results, setting),
                level,
            )
            for (kind, name, setting), part in parts(means, *_DATASET, SETTING)
        ]
    return [
        Panel(
            str(label),
            [
                _line(_name(name, setting), lines.index((name, setting)), of_line)
                for (name, setting), of_line in parts(part, _DATASET[1], SETTING)
            ],
            EPOCHS,
            axis,
            "all",
            level=level,
        )
        for label, part in parts(means, _LABEL)
    ]


def _at_the_end(results: Results, frame: pd.DataFrame, axis: str, level: float) -> list[Panel]:
    """A panel for each data set, with a line for each phenomenon and a point for each setting."""
    means = _means(frame)
    settings = [group.name for group in results.groups]
    panels = []
    for (kind, name), part in parts(means, *_DATASET):
        categories = list(dict.fromkeys(part[_LABEL]))
        series = [
            Series(
                setting or axis,
                settings.index(setting),
                INTERVALS,
                of_setting["mean"].to_numpy(float),
                np.array([categories.index(label) for label in of_setting[_LABEL]], float),
                of_setting[LOW].to_numpy(float),
                of_setting[HIGH].to_numpy(float),
            )
            for setting, of_setting in parts(part, SETTING)
        ]
        title = f"{name} ({kind})"
        panels.append(
            Panel(
                title,
                series,
                axis,
                "",
                title,
                marks=[level],
                categories=categories,
                x_ends=(-0.02, 1.02) if axis == _ACCURACY else None,
            )
        )
    return panels


def _name(dataset: str, setting: str) -> str:
    return f"{dataset}, {setting}" if setting else dataset


def _means(frame: pd.DataFrame) -> pd.DataFrame:
    return over_runs(frame, [*_DATASET, _LABEL], {VALUE: VALUE, LOW: LOW, HIGH: HIGH})


def _line(name: str, style: int, part: pd.DataFrame) -> Series:
    columns = (part[column].to_numpy(float) for column in (X, "mean", LOW, HIGH))
    x, mean, low, high = columns
    return Series(name, style, LINE, x, mean, low, high)


def _best(results: Results, setting: str) -> Sequence[float]:
    places = next(group.runs for group in results.groups if group.name == setting)
    best = results.runs[places[0]].files.best_epoch
    return [best + 1.0] if len(places) == 1 and best is not None else []


def _epochs(run: RunTrajectories, row: dict[str, Any]) -> float:
    """How many epochs the model had learned."""
    numbers = {
        name: None if (value := row.get(name)) is None or value != value else int(value)
        for name in ("epoch", "step")
    }
    kind, name = (str(row.get(column)) for column in _DATASET)
    return run.epochs_of_training(PassKey(kind, name, numbers["epoch"], numbers["step"]))


def _label(row: dict[str, Any]) -> str:
    """What a row of a summary is about."""
    phenomenon, name = str(row.get("phenomenon")), row.get("comparison_name")
    return f"{phenomenon}: {name}" if isinstance(name, str) else phenomenon
