"""Every batch's losses, for the plot: a few numbers a batch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping


class LossHistory:
    """The losses of each batch of each epoch, by data set and loss, in order."""

    def __init__(self) -> None:
        self.epochs: dict[str, array[int]] = {}
        """The epoch of each batch, by data set type."""
        self.weights: dict[str, array[int]] = {}
        """How many labels of each batch counted, by data set type."""
        self.values: dict[str, dict[str, array[float]]] = {}
        """The losses of each batch, by data set type and by loss."""

    def add(
        self, dataset_type: str, epoch: int, losses: Mapping[str, float], n_labels: int
    ) -> None:
        """Take in a batch."""
        self.epochs.setdefault(dataset_type, array("l")).append(epoch)
        self.weights.setdefault(dataset_type, array("l")).append(n_labels)
        by_loss = self.values.setdefault(dataset_type, {})
        for name, value in losses.items():
            by_loss.setdefault(name, array("f")).append(value)
