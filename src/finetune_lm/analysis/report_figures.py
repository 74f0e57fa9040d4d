"""The figures about tokens: losses, surprisal, before and after, what was forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.analysis.figure_parts import (
    INTERVALS,
    LINE,
    MOST_NAMES,
    POINTS,
    UNDIVIDED,
    Figure,
    Panel,
    Series,
    columns_for,
)
from finetune_lm.analysis.report_frames import (
    DATASET,
    HIGH,
    LOW,
    SETTING,
    UNTOUCHED,
    VALUE,
    Results,
    X,
    is_undivided,
    kl_frame,
    losses_frame,
    over_runs,
    parts,
    surprisal_frame,
)
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

EPOCHS = "epochs of training"
BITS_A_WORD = "surprisal (bits a word)"
ALL = "all sentences"
MOST_PANELS = 60
_MOST_POINTS = 1_500
_OUR_LOSSES = ("loss", "OutputsDefaultLoss", "KLBaselineLoss")
_BAND = {
    False: "Bands are 95 % intervals of the mean over sentences",
    True: "Bands are 95 % intervals of the mean over seeds; a line ends where the first of its "
    "runs does",
}
_COLUMNS = {VALUE: VALUE, LOW: LOW, HIGH: HIGH}


def token_figures(results: Results, ends: pd.DataFrame, fillers: Sequence[str]) -> list[Figure]:
    """The figures that can be drawn of tables of tokens.

    Args:
        results: What the runs have come to.
        ends: What `ends_frame` made of them.
        fillers: The data sets that were not to change.

    Raises:
        UserError: If there are more conditions than can be told apart.
    """
    losses, surprisal = losses_frame(results), surprisal_frame(results)
    figures = [
        loss_figure(results, losses),
        surprisal_figure(results, surprisal),
        test_figure(results, surprisal),
        before_after_figure(results, ends),
        forgetting_figure(results, surprisal, fillers),
        divergence_figure(results, losses, kl_frame(results)),
    ]
    return [figure for figure in figures if figure is not None]


def loss_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """Losses over epochs."""
    if frame.empty:
        return None
    losses = list(dict.fromkeys(frame["loss"]))
    if len(losses) == 2:
        losses = losses[:1]  # what was minimised is its only part
    columns = {VALUE: VALUE, LOW: "lowest_batch", HIGH: "highest_batch"}
    means = over_runs(frame, [DATASET[0], "loss"], columns)
    panels = [
        Panel(
            _title("loss minimised" if loss == "loss" else loss, setting),
            list(_lines(part, DATASET[0], ["train", "validation"])),
            EPOCHS,
            "loss (nats)" if loss.rstrip("_0123456789") in _OUR_LOSSES else "loss",
            loss,
            _best(results, setting),
        )
        for loss in losses
        for setting, part in parts(means[means["loss"] == loss], SETTING)
    ]
    return Figure(
        "loss",
        "Loss over epochs",
        "Training is measured while an epoch goes on, before each update, and stands in the middle "
        "of its epoch; validation comes at the end. Bands go from the lowest to the highest batch, "
        "and are 95 % intervals of the mean over seeds where there are several. A dotted line "
        "marks the best epoch.",
        panels,
        frame,
        columns_for(len(panels), len(results.groups)),
    )


def surprisal_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """Surprisal over epochs, by condition."""
    frame = _with_several_passes(frame)
    if frame.empty:
        return None
    panels = _panels(results, frame, _COLUMNS, BITS_A_WORD)
    return Figure(
        "surprisal",
        "Surprisal over epochs",
        f"The mean over sentences of what a word costs. {_band(results)}. Training data are "
        f"measured while the epoch goes on, with dropout if the model has it.",
        panels,
        frame,
        columns_for(len(panels), len(results.groups)),
    )


def test_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """Surprisal in tests, by condition."""
    frame = frame[frame[DATASET[0]] == "test"] if len(frame) else frame
    if frame.empty:
        return None
    names = results.conditions.names
    means = over_runs(frame, [*DATASET, *names], _COLUMNS)
    settings = [group.name for group in results.groups]
    panels = []
    for (_, dataset), part in parts(means, *DATASET):
        labels = [_label(row) for row in part[list(names)].itertuples(index=False)]
        categories = list(dict.fromkeys(labels))
        places = np.array([categories.index(label) for label in labels], float)
        series = [
            _series(setting or "mean", settings.index(setting), INTERVALS, of_setting, places[here])
            for setting in settings
            if (here := (part[SETTING] == setting).to_numpy()).any()
            for of_setting in [part[here]]
        ]
        title = str(dataset)
        panels.append(Panel(title, series, BITS_A_WORD, "", title, categories=categories))
    return Figure(
        "test",
        "Surprisal in tests",
        "The mean over sentences of what a word costs the best model. Bars are 95 % intervals.",
        panels,
        frame,
        1,
    )


def before_after_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """What each sentence cost before the training and after it."""
    if len(frame):
        frame = frame[frame["before_is"] == UNTOUCHED]
    if not len(frame):
        return None
    names = results.conditions.names
    by = names[-1:]
    keys = [SETTING, *DATASET, *by, "example_num"]
    values = frame.groupby(keys, sort=False, dropna=False).agg(
        {"before": "mean", "after": "mean", "original_text": "first"}
    )
    values = values.reset_index()
    order = _order(results, values)
    panels = []
    for (dataset_type, dataset, setting), part in parts(values, *DATASET, SETTING):
        if len(part) > _MOST_POINTS:
            chosen = np.random.default_rng(0).choice(len(part), _MOST_POINTS, replace=False)
            part = part.iloc[np.sort(chosen)]
        series = []
        for name, of_name in parts(part, *by) if by else [("", part)]:
            label = ALL if not name or is_undivided([name]) else name
            before, after = (of_name[column].to_numpy(float) for column in ("before", "after"))
            style = order.index(name) if name in order else UNDIVIDED
            texts = [text[:120] for text in of_name["original_text"]]
            series.append(Series(label, style, POINTS, before, after, texts=texts))
        title = _title(_dataset(dataset_type, dataset), setting)
        panels.append(
            Panel(
                title,
                series,
                "before (bits a word)",
                "after (bits a word)",
                "all",
                is_square=True,
            )
        )
    return Figure(
        "before_after",
        "Before against after",
        "A point a sentence: what its words cost on average before the training (across) and at "
        "the best epoch (up). Below the diagonal a sentence became cheaper. At most "
        f"{_MOST_POINTS:,} points are drawn; the CSV file has all.",
        panels,
        frame,
        columns_for(len(panels), len(results.groups)),
    )


def forgetting_figure(
    results: Results, frame: pd.DataFrame, fillers: Sequence[str]
) -> Figure | None:
    """How far sentences have moved that were not to change."""
    if "change" not in frame.columns:
        return None
    is_filler = frame[DATASET[1]].isin(fillers) & (frame[DATASET[0]] != "train")
    frame = _with_several_passes(frame[is_filler & frame["change"].notna()])
    if frame.empty:
        return None
    columns = {VALUE: "change", LOW: f"change_{LOW}", HIGH: f"change_{HIGH}"}
    panels = _panels(results, frame, columns, "change (bits a word)", level=0.0)
    return Figure(
        "forgetting",
        "Forgetting: sentences that should not change",
        "How much dearer (above 0) or cheaper the fillers' words have become since before the "
        f"training, compared sentence by sentence. {_band(results)}.",
        panels,
        frame,
        columns_for(len(panels), len(results.groups)),
    )


def divergence_figure(
    results: Results, losses: pd.DataFrame, measured: pd.DataFrame
) -> Figure | None:
    """How far the model's predictions are from those of the untouched model."""
    import pandas as pd

    term = losses[losses["loss"].str.startswith("KLBaselineLoss")] if len(losses) else losses
    panels, frames = [], []
    if len(term):
        columns = {VALUE: VALUE, LOW: "lowest_batch", HIGH: "highest_batch"}
        means = over_runs(term, [DATASET[0], "loss"], columns)
        frames.append(term)
        panels += [
            Panel(
                _title(str(loss), setting),
                list(_lines(part, DATASET[0], ["train", "validation"])),
                EPOCHS,
                "KL term, as weighted (nats)",
                "term",
                level=0.0,
            )
            for (loss, setting), part in parts(means, "loss", SETTING)
        ]
    if len(measured):
        frames.append(measured)
        means = over_runs(measured, DATASET, _COLUMNS)
        names = list(dict.fromkeys(means[DATASET[1]]))
        panels += [
            Panel(
                _title("measured token by token", setting),
                list(_lines(part, DATASET[1], names, shift=2)),
                EPOCHS,
                "KL from the untouched model (bits a token)",
                "measured",
                level=0.0,
            )
            for setting, part in parts(means, SETTING)
        ]
    if not panels:
        return None
    return Figure(
        "divergence",
        "Divergence from the untouched model",
        "How far predictions are from what the model would have said before: 0 is nothing "
        "forgotten.",
        panels,
        pd.concat(frames, ignore_index=True),
        columns_for(len(panels), len(results.groups)),
    )


def _panels(
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
    means["_dataset"] = [_dataset(*row) for row in means[list(DATASET)].itertuples(index=False)]
    if not names:
        order = list(dict.fromkeys(means["_dataset"]))
        _check_names(order, "data sets")
        return [
            Panel(
                setting,
                list(_lines(part, "_dataset", order)),
                EPOCHS,
                y_label,
                marks=_best(results, setting),
                level=level,
            )
            for setting, part in parts(means, SETTING)
        ]
    order = _order(results, means)
    panels = [
        Panel(
            _title(*([key[0]] if is_undivided(key[1:-1]) else key[:-1]), key[-1]),
            list(_lines(part, names[-1], order)),
            EPOCHS,
            y_label,
            "all",
            _best(results, key[-1]),
            level,
        )
        for key, part in parts(means, "_dataset", *names[:-1], SETTING)
    ]
    if len(panels) > MOST_PANELS:
        raise UserError(
            f"--by must ask for at most {MOST_PANELS} panels in a figure but {' '.join(names)} "
            f"asks for {len(panels)}. The values of the last column are lines of one panel: name "
            f"that with the most values last, or fewer columns."
        )
    return panels


def _order(results: Results, frame: pd.DataFrame) -> list[str]:
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


def _lines(
    frame: pd.DataFrame, column: str, order: Sequence[str], shift: int = 0
) -> Iterator[Series]:
    """A line for each value of a column."""
    for name, part in parts(frame, column):
        style = order.index(name) + shift if name in order else UNDIVIDED
        label = ALL if is_undivided([name]) else str(name)
        yield _series(label, style, LINE, part)


def _series(name: str, style: int, kind: str, part: pd.DataFrame, places: Any = None) -> Series:
    low, high = part[LOW].to_numpy(float), part[HIGH].to_numpy(float)
    mean, x = part["mean"].to_numpy(float), part[X].to_numpy(float)
    if places is not None:
        return Series(name, style, kind, mean, places, low, high)
    return Series(name, style, kind, x, mean, low, high)


def _with_several_passes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows about data that were measured more than once."""
    if frame.empty:
        return frame
    n = frame.groupby(["run", *DATASET])[X].transform("nunique")
    found: pd.DataFrame = frame[n > 1]
    return found


def _best(results: Results, setting: str) -> list[float]:
    """After how many epochs the best model was reached, where there is one run."""
    runs = [
        results.runs[place].files for g in results.groups if g.name == setting for place in g.runs
    ]
    return (
        [run.best_epoch + 1.0 for run in runs if run.best_epoch is not None][:1]
        if len(runs) == 1
        else []
    )


def _band(results: Results) -> str:
    return _BAND[any(results.has_seeds(group.name) for group in results.groups)]


def _dataset(dataset_type: str, name: str) -> str:
    return f"{name} ({dataset_type})"


def _label(values: Sequence[str]) -> str:
    return ALL if is_undivided(values) else ", ".join(values)


def _title(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
