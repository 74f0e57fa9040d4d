"""Every batch's losses, for the plot: a few numbers a batch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any


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

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            "epochs": {kind: values.tobytes() for kind, values in self.epochs.items()},
            "weights": {kind: values.tobytes() for kind, values in self.weights.items()},
            "values": {
                kind: {name: values.tobytes() for name, values in by_loss.items()}
                for kind, by_loss in self.values.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.epochs = {kind: array("l", values) for kind, values in state["epochs"].items()}
        self.weights = {kind: array("l", values) for kind, values in state["weights"].items()}
        self.values = {
            kind: {name: array("f", values) for name, values in by_loss.items()}
            for kind, by_loss in state["values"].items()
        }
