"""The means of losses over an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from finetune_lm.errors import UserError
from finetune_lm.recording.columns import LOSS


class EpochLosses:
    """Means over an epoch. A batch counts by its labels that count, or by what a loss says.

    Attributes:
        n_not_finite: How many batches were left out since a loss was infinite or no number.
    """

    def __init__(self) -> None:
        self.n_not_finite = 0
        self._n_labels = 0
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._own: set[str] = set()

    def add(
        self, losses: Mapping[str, float], n_labels: int, weights: Mapping[str, float] | None = None
    ) -> None:
        """Take in a batch.

        Args:
            losses: Its losses by column.
            n_labels: How many of its labels count.
            weights: By what the losses count that are no means over these labels.
        """
        weights = weights or {}
        self._n_labels += n_labels
        self._own |= weights.keys()
        for name, value in losses.items():
            weight = weights.get(name, n_labels)
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weights[name] = self._weights.get(name, 0) + weight

    def means(
        self, dataset_name: str, reduced: Callable[[Mapping[str, float]], float] | None = None
    ) -> dict[str, float]:
        """The mean of each loss.

        Args:
            dataset_name: What the data set is called, for the message.
            reduced: Makes of the means of the losses that of what is minimised, where these are not
                all means over the same.

        Raises:
            UserError: If no label of the data set counts.
        """
        if not self._n_labels:
            raise UserError(
                f"{dataset_name} has nothing to predict: all of its labels are ignored. Masked "
                f"language models need masks, in the file or from a data_preprocessing_fn."
            )
        # A loss that counts by nothing is 0.
        means = {name: total / (self._weights[name] or 1) for name, total in self._sums.items()}
        if reduced is not None and self._own:
            means[LOSS] = reduced(means)
        return means

    @property
    def is_empty(self) -> bool:
        """Whether no label has counted so far."""
        return self._n_labels == 0

    def state_dict(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {
            "n_not_finite": self.n_not_finite,
            "n_labels": self._n_labels,
            "sums": dict(self._sums),
            "weights": dict(self._weights),
            "own": sorted(self._own),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.n_not_finite = state["n_not_finite"]
        self._n_labels = state["n_labels"]
        self._sums, self._weights = dict(state["sums"]), dict(state["weights"])
        self._own = set(state["own"])
