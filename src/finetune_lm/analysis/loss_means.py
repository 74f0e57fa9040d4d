"""The losses of an epoch, from the rows of its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from finetune_lm.analysis.token_passes import Floats, Ints, TokenPass
from finetune_lm.recording.columns import LABEL_SEQUENCE, LOSS, SEQUENCE_TYPE

_KL_TERM = "KLBaselineLoss"


@dataclass(frozen=True)
class LossMean:
    """One loss over one pass.

    Attributes:
        name: ``loss`` for what was minimised, or the column of a part of it; of a model in two
            modes with the mode.
        mean: Its mean, in its own unit (nats for those that come with the program).
        lowest: The lowest batch.
        highest: The highest batch.
        n_batches: How many batches there were.
    """

    name: str
    mean: float
    lowest: float
    highest: float
    n_batches: int

    def in_mode(self, mode: str | None) -> LossMean:
        """The same as that of one mode of a model that has two."""
        return self if mode is None else replace(self, name=f"{self.name} ({mode})")


def loss_means(tokens: TokenPass, names: Sequence[str]) -> list[LossMean]:
    """The mean of each loss over a pass, weighted as the run weighted it.

    Batches count by the number of labels that were predicted; those of the KL term, which has the
    same number of sentences for each batch, alike. What was minimised is the sum of the means of
    its parts where it was their sum in every batch, so that all losses of an epoch go together.

    Args:
        tokens: The pass, with the columns of the losses.
        names: These columns, ``loss`` first.
    """
    batches, first, labels = _batches(tokens)
    values = {name: _column(tokens, name)[first] for name in names}
    values = {name: each for name, each in values.items() if not np.isnan(each).all()}
    if LOSS not in values:
        return []
    finite = np.all([np.isfinite(each) for each in values.values()], axis=0)
    if not finite.any():
        return []
    values = {name: each[finite] for name, each in values.items()}
    labels, n = labels[finite], len(batches[finite])
    means = {
        name: float(np.average(each, weights=None if name.startswith(_KL_TERM) else labels))
        for name, each in values.items()
    }
    parts = [name for name in values if name != LOSS]
    together = np.sum([values[name] for name in parts], axis=0)
    if parts and np.allclose(together, values[LOSS], rtol=1e-5, atol=1e-5):
        means[LOSS] = sum(means[name] for name in parts)
    return [
        LossMean(name, means[name], float(each.min()), float(each.max()), n)
        for name, each in values.items()
    ]


def _batches(tokens: TokenPass) -> tuple[Ints, Ints, Ints]:
    """The numbers of the batches, the first row of each, and how many labels each predicted."""
    rows = tokens.all_rows
    counts = pc.is_valid(rows["surprisal"])
    if SEQUENCE_TYPE in rows.column_names:
        is_label = pc.equal(rows[SEQUENCE_TYPE], LABEL_SEQUENCE).fill_null(False)
        counts = pc.and_(counts, is_label)
    number = rows["batch_number"].to_numpy()
    batches, first, place = np.unique(number, return_index=True, return_inverse=True)
    weights = counts.to_numpy().astype(float)
    labels: Ints = np.bincount(place, weights).astype(np.int64)
    return batches, first, np.maximum(labels, 1)


def _column(tokens: TokenPass, name: str) -> Floats:
    found: Floats = tokens.all_rows[name].cast("float64").to_numpy(zero_copy_only=False)
    return found
