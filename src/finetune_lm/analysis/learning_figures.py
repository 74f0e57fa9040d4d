"""The figures about learning and forgetting: losses, fillers, divergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_lm.analysis.figure_panels import (
    COLUMNS,
    EPOCHS,
    band_of,
    best_epoch_of,
    in_rows,
    lines_of,
    panel_title,
    panels_of,
    with_several_passes,
)
from finetune_lm.analysis.figure_parts import Figure, Panel, columns_for
from finetune_lm.analysis.report_frames import (
    DATASET,
    HIGH,
    LOW,
    SETTING,
    VALUE,
    Results,
    over_runs,
    parts,
)

if TYPE_CHECKING:
    import pandas as pd

_OUR_LOSSES = ("loss", "OutputsDefaultLoss", "KLBaselineLoss")


def base_of(loss: str) -> str:
    """The name of a loss without the mode in which it is."""
    return loss.partition(" (")[0]


def _called(loss: str) -> str:
    return f"loss minimised{loss.removeprefix('loss')}" if base_of(loss) == "loss" else loss


def loss_figure(results: Results, frame: pd.DataFrame) -> Figure | None:
    """Losses over epochs."""
    if frame.empty:
        return None
    losses = list(dict.fromkeys(frame["loss"]))
    if len({base_of(loss) for loss in losses}) == 2:
        # What was minimised is its only part.
        losses = [loss for loss in losses if base_of(loss) == "loss"]
    columns = {VALUE: VALUE, LOW: "lowest_batch", HIGH: "highest_batch"}
    means = over_runs(frame, [DATASET[0], "loss"], columns)
    found = {
        (loss, setting): Panel(
            panel_title(_called(loss), setting),
            list(lines_of(part, DATASET[0], ["train", "validation"])),
            EPOCHS,
            "loss (nats)" if base_of(loss).rstrip("_0123456789") in _OUR_LOSSES else "loss",
            base_of(loss),
            best_epoch_of(results, setting),
        )
        for loss in losses
        for setting, part in parts(means[means["loss"] == loss], SETTING)
    }
    panels = in_rows(results, found)
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


def forgetting_figure(
    results: Results, frame: pd.DataFrame, fillers: Sequence[str]
) -> Figure | None:
    """How far sentences have moved that were not to change."""
    if "change" not in frame.columns:
        return None
    is_filler = frame[DATASET[1]].isin(fillers) & (frame[DATASET[0]] != "train")
    frame = with_several_passes(frame[is_filler & frame["change"].notna()])
    if frame.empty:
        return None
    columns = {VALUE: "change", LOW: f"change_{LOW}", HIGH: f"change_{HIGH}"}
    panels = panels_of(results, frame, columns, "change (bits a word)", level=0.0)
    return Figure(
        "forgetting",
        "Forgetting: sentences that should not change",
        "How much dearer (above 0) or cheaper the fillers' words have become since before the "
        f"training, compared sentence by sentence. {band_of(results)}.",
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
    found: dict[tuple[str, str], Panel] = {}
    frames = []
    if len(term):
        columns = {VALUE: VALUE, LOW: "lowest_batch", HIGH: "highest_batch"}
        means = over_runs(term, [DATASET[0], "loss"], columns)
        frames.append(term)
        found |= {
            (loss, setting): Panel(
                panel_title(str(loss), setting),
                list(lines_of(part, DATASET[0], ["train", "validation"])),
                EPOCHS,
                "KL term, as weighted (nats)",
                "term",
                level=0.0,
            )
            for (loss, setting), part in parts(means, "loss", SETTING)
        }
    if len(measured):
        frames.append(measured)
        means = over_runs(measured, DATASET, COLUMNS)
        names = list(dict.fromkeys(means[DATASET[1]]))
        found |= {
            ("measured", setting): Panel(
                panel_title("measured token by token", setting),
                list(lines_of(part, DATASET[1], names, shift=2)),
                EPOCHS,
                "KL from the untouched model (bits a token)",
                "measured",
                level=0.0,
            )
            for setting, part in parts(means, SETTING)
        }
    if not found:
        return None
    panels = in_rows(results, found)
    return Figure(
        "divergence",
        "Divergence from the untouched model",
        "How far predictions are from what the model would have said before: 0 is nothing "
        "forgotten.",
        panels,
        pd.concat(frames, ignore_index=True),
        columns_for(len(panels), len(results.groups)),
    )
