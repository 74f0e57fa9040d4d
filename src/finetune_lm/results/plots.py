"""The loss curves of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from finetune_lm.results.columns import LOSS
from finetune_lm.results.loss_history import LossHistory
from finetune_lm.whole_files import write_whole

_COLOURS = {"train": "#0072B2", "validation": "#D55E00"}
_BATCHES_SHOWN_SINGLY = 2_000


def save_loss_curves(path: Path, history: LossHistory, title: str, best_epoch: int | None) -> None:
    """Plot the overall loss, and each loss whose name ends in ``Loss`` if there are several.

    A line joins the epochs' means. Batches are faint dots, or, where they are too many to be told
    apart, a band from the lowest to the highest of each epoch.

    Args:
        path: The PDF file to write.
        history: The losses.
        title: What stands above.
        best_epoch: The epoch to mark.
    """
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = _panels(history)
    figure = Figure(figsize=(8, 1 + 3.2 * len(panels)), layout="constrained")
    FigureCanvasPdf(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name in zip(axes, panels, strict=True):
        for dataset_type, by_loss in history.values.items():
            if name in by_loss:
                colour = _COLOURS.get(dataset_type)
                epochs = np.asarray(history.epochs[dataset_type])
                _draw_batches(axis, epochs, np.asarray(by_loss[name]), colour)
                numbers = np.asarray(history.ended.get(dataset_type, ()))
                means = np.asarray(history.means.get(dataset_type, {}).get(name, ()))
                marker = "o" if len(numbers) <= 40 else None
                style = {"color": colour, "marker": marker, "markersize": 3}
                axis.plot(numbers, means, label=dataset_type, **style)
        if best_epoch is not None:
            axis.axvline(best_epoch, color="0.5", linewidth=0.8, linestyle=":", label="best epoch")
        axis.set_ylabel("loss minimised" if name == LOSS else name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.25)
    low, high = axes[0].get_xlim()
    if high - low < 1:  # a single epoch stands in the middle
        axes[0].set_xlim(round(low) - 0.5, round(high) + 0.5)
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("epoch")
    figure.suptitle(title)
    with write_whole(path) as aside:
        # Without a date, so that equal runs leave equal files.
        figure.savefig(aside, format="pdf", metadata={"CreationDate": None})


def _panels(history: LossHistory) -> list[str]:
    parts = {
        name: None
        for by_loss in history.values.values()
        for name in by_loss
        if name != LOSS and name.rstrip("_0123456789").endswith("Loss")
    }
    several = any(len(by_loss) > 2 for by_loss in history.values.values())
    return [LOSS, *(parts if several else ())]


def _draw_batches(axis: Any, epochs: Any, values: Any, colour: str | None) -> None:
    numbers, first, counts = np.unique(epochs, return_index=True, return_counts=True)
    if counts.max() == 1:
        return
    if len(values) <= _BATCHES_SHOWN_SINGLY:
        within = np.arange(len(values)) - np.repeat(first, counts)
        # Batches stand around their epoch, in their order.
        places = epochs + ((within + 0.5) / np.repeat(counts, counts) - 0.5) * 0.8
        axis.plot(places, values, ".", color=colour, alpha=0.25, markersize=3, zorder=1)
    else:
        low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
        axis.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
