"""The figures about tokens: losses, surprisal, before and after, what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune_lm.analysis.figure_panels import (
    ALL,
    COLUMNS,
    band_of,
    condition_label,
    dataset_title,
    in_rows,
    order_of,
    panel_title,
    panels_of,
    series_of,
    with_several_passes,
)
from finetune_lm.analysis.figure_parts import (
    INTERVALS,
    POINTS,
    UNDIVIDED,
    Figure,
    Panel,
    Series,
    columns_for,
)
from finetune_lm.analysis.learning_figures import (
    divergence_figure,
    forgetting_figure,
    loss_figure,
)
from finetune_lm.analysis.report_frames import (
    DATASET,
    SETTING,
    UNTOUCHED,
    Results,
    is_undivided,
    kl_frame,
    losses_frame,
    over_runs,
    parts,
    surprisal_frame,
)

if TYPE_CHECKING:
    import pandas as pd

BITS_A_WORD = "surprisal (bits a word)"
_MOST_POINTS = 1_500


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


def surprisal_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """Surprisal over epochs, by condition."""
    frame = with_several_passes(frame)
    if frame.empty:
        return None
    panels = panels_of(results, frame, COLUMNS, BITS_A_WORD)
    return Figure(
        "surprisal",
        "Surprisal over epochs",
        f"The mean over sentences of what a word costs. {band_of(results)}. Training data are "
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
    means = over_runs(frame, [*DATASET, *names], COLUMNS)
    settings = [group.name for group in results.groups]
    panels = []
    for (_, dataset), part in parts(means, *DATASET):
        labels = [condition_label(row) for row in part[list(names)].itertuples(index=False)]
        categories = list(dict.fromkeys(labels))
        places = np.array([categories.index(label) for label in labels], float)
        series = [
            series_of(
                setting or "mean", settings.index(setting), INTERVALS, of_setting, places[here]
            )
            for setting in settings
            if (here := (part[SETTING] == setting).to_numpy()).any()
            for of_setting in [part[here]]
        ]
        title = str(dataset)
        panels.append(Panel(title, series, BITS_A_WORD, "", title, categories=categories))
    return Figure(
        "test",
        "Surprisal in tests",
        "The mean over sentences of what a word costs, after training at the best epoch. Bars are "
        "95 % intervals.",
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
    order = order_of(results, values)
    panels: dict[tuple[str, str], Panel] = {}
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
        name = dataset_title(dataset_type, dataset)
        panels[name, setting] = Panel(
            panel_title(name, setting),
            series,
            "before (bits a word)",
            "after (bits a word)",
            "all",
            is_square=True,
        )
    drawn = in_rows(results, panels)
    return Figure(
        "before_after",
        "Before against after",
        "A point a sentence: what its words cost on average before the training (across) and at "
        "the best epoch (up). Below the diagonal a sentence became cheaper. At most "
        f"{_MOST_POINTS:,} points are drawn; the CSV file has all.",
        drawn,
        frame,
        columns_for(len(drawn), len(results.groups)),
    )
