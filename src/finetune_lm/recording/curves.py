"""The loss curves of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.recorder import named_in_mode
from finetune_lm.whole_files import write_whole

_COLOURS = {"train": "#0072B2", "validation": "#D55E00"}
_BATCHES_SHOWN_SINGLY = 2_000
_LONGEST_LINE = 95

# In inches. Fixed, since to find out what the texts need would draw everything once more.
_WIDTH, _PANEL, _BETWEEN = 8.0, 3.0, 0.15
_LEFT, _RIGHT = 0.95, 0.15
_LINE = 0.2
_BELOW_AXIS = 0.55


def save_loss_curves(
    path: Path,
    history: LossHistory,
    title: str,
    best_epoch: int | None,
    units: Mapping[str, str | None] | None = None,
) -> None:
    """Plot the overall loss, and each loss whose name ends in ``Loss`` if there are several.

    Each mode of a model that has two has panels of its own.

    All is where it was measured: the epoch with the number 0 goes from 0 to 1; the loss of a
    training batch is at its part of the epoch, and their mean in the middle; validation comes at
    the end. Batches are faint dots, or, where they are too many to be told apart, a band from the
    lowest to the highest of each epoch.

    Args:
        path: The PDF file to write.
        history: The losses.
        title: What stands above.
        best_epoch: The epoch to mark.
        units: The unit of each loss, where it is known.
    """
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [(name, mode) for name in _panels(history) for mode in history.modes()]
    lines = "\n".join(
        fill(line, _LONGEST_LINE, break_on_hyphens=False) for line in title.split("\n")
    )
    figure = Figure()
    FigureCanvasPdf(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, mode) in zip(axes, panels, strict=True):
        for dataset_type in _COLOURS:
            if name in history.values.get(named_in_mode(dataset_type, mode), ()):
                _draw(axis, history, dataset_type, name, mode)
        if best_epoch is not None:
            label = f"best epoch ({best_epoch})"
            axis.axvline(best_epoch + 1, color="0.5", linewidth=0.8, linestyle=":", label=label)
        unit = (units or {}).get(name)
        label = "loss minimised" if name == LOSS else name
        label = label if mode is None else f"{label}, {mode}"
        axis.set_ylabel(f"{label} ({unit})" if unit else label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.25)
    labels: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        labels = dict(zip(names, handles, strict=True)) | labels
    handles = list(labels.values())
    figure.legend(handles, list(labels), loc="lower center", ncols=2, frameon=False)
    axes[-1].set_xlabel("epochs of training (epoch 0 of the tables goes from 0 to 1)")
    above = _arrange(figure, len(panels), lines.count("\n") + 1, (len(labels) + 1) // 2)
    figure.suptitle(lines, fontsize="medium", y=above, va="top")
    with write_whole(path) as aside:
        # Without a date, so that equal runs leave equal files.
        figure.savefig(aside, format="pdf", metadata={"CreationDate": None})


def _arrange(figure: Any, n_panels: int, n_title_lines: int, n_legend_lines: int) -> float:
    """Give the title, the panels and the legend the room that they need.

    Returns:
        Where the title begins, as part of the height.
    """
    above = _LINE * (n_title_lines + 1)
    below = _BELOW_AXIS + _LINE * (n_legend_lines + 0.5)
    height = above + n_panels * _PANEL + (n_panels - 1) * _BETWEEN + below
    figure.set_size_inches(_WIDTH, height)
    figure.subplots_adjust(
        left=_LEFT / _WIDTH,
        right=1 - _RIGHT / _WIDTH,
        bottom=below / height,
        top=1 - above / height,
        hspace=_BETWEEN / _PANEL,
    )
    return 1 - _LINE / 2 / height


def _panels(history: LossHistory) -> list[str]:
    parts = {
        name: None
        for by_loss in history.values.values()
        for name in by_loss
        if name != LOSS and name.rstrip("_0123456789").endswith("Loss")
    }
    several = any(len(by_loss) > 2 for by_loss in history.values.values())
    return [LOSS, *(parts if several else ())]


def _draw(axis: Any, history: LossHistory, dataset_type: str, name: str, mode: str | None) -> None:
    colour, data = _COLOURS[dataset_type], named_in_mode(dataset_type, mode)
    epochs, batches = (np.asarray(each[data]) for each in (history.epochs, history.numbers))
    values = np.asarray(history.values[data][name])
    numbers, first, counts = np.unique(epochs, return_index=True, return_counts=True)
    ended = np.asarray(history.ended.get(data, ()))
    means = np.asarray(history.means.get(data, {}).get(name, ()))
    if dataset_type == "train":
        # A batch's loss is measured before its own update.
        places, behind = epochs + batches / (batches.max() + 1), 0.5
        mean = "train: mean of an epoch"
    else:
        places, behind = epochs + 1, 1
        mean = f"{dataset_type}: mean at the end of an epoch"
    if counts.max() > 1:
        if len(values) <= _BATCHES_SHOWN_SINGLY:
            label = f"{dataset_type}: a batch"
            style = {"alpha": 0.5, "markersize": 5, "markeredgewidth": 0, "zorder": 1}
            axis.plot(places, values, ".", color=colour, label=label, **style)
        else:
            low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
            label = f"{dataset_type}: lowest to highest batch"
            style = {"alpha": 0.15, "linewidth": 0, "zorder": 1}
            axis.fill_between(numbers + behind, low, high, color=colour, label=label, **style)
    marker = "o" if len(ended) <= 40 else None
    axis.plot(ended + behind, means, color=colour, marker=marker, markersize=3, label=mean)
