"""Every batch's losses, and the means of epochs, for the plot: a few numbers a batch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from finetune_lm.recording.recorder import Measured, Recorder

_INTEGERS, _BATCHES, _MEANS = "l", "f", "d"


class LossHistory(Recorder):
    """The losses of each batch of each epoch, and their means, by data set and loss, in order."""

    def __init__(self) -> None:
        self.epochs: dict[str, array[int]] = {}
        """The epoch of each batch, by data set type."""
        self.numbers: dict[str, array[int]] = {}
        """The number of each batch in its epoch, by data set type."""
        self.values: dict[str, dict[str, array[float]]] = {}
        """The losses of each batch, by data set type and by loss."""
        self.ended: dict[str, array[int]] = {}
        """The epochs that have means, by data set type."""
        self.means: dict[str, dict[str, array[float]]] = {}
        """The means of each of them, by data set type and by loss."""

    def batch(self, measured: Measured) -> None:
        """Take in a batch, unless one of its losses is no finite number."""
        if measured.is_finite:
            assert measured.losses is not None
            self.add(measured.split.dataset_type, measured.epoch, measured.number, measured.losses)

    def add(self, dataset_type: str, epoch: int, number: int, losses: Mapping[str, float]) -> None:
        """Take in a batch, whose number in its epoch is given."""
        self.epochs.setdefault(dataset_type, array(_INTEGERS)).append(epoch)
        self.numbers.setdefault(dataset_type, array(_INTEGERS)).append(number)
        by_loss = self.values.setdefault(dataset_type, {})
        for name, value in losses.items():
            by_loss.setdefault(name, array(_BATCHES)).append(value)

    def pass_over(self, dataset_type: str, epoch: int, means: Mapping[str, float]) -> None:
        """Take in the means of an epoch.

        They may be given again: a run that is gone on with in a validation has trained already.
        """
        ended = self.ended.setdefault(dataset_type, array(_INTEGERS))
        if ended and ended[-1] == epoch:
            return
        ended.append(epoch)
        by_loss = self.means.setdefault(dataset_type, {})
        for name, value in means.items():
            by_loss.setdefault(name, array(_MEANS)).append(value)

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            "epochs": _bytes(self.epochs),
            "numbers": _bytes(self.numbers),
            "values": {kind: _bytes(by_loss) for kind, by_loss in self.values.items()},
            "ended": _bytes(self.ended),
            "means": {kind: _bytes(by_loss) for kind, by_loss in self.means.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.epochs = _arrays(_INTEGERS, state["epochs"])
        self.numbers = _arrays(_INTEGERS, state["numbers"])
        self.values = {kind: _arrays(_BATCHES, each) for kind, each in state["values"].items()}
        self.ended = _arrays(_INTEGERS, state["ended"])
        self.means = {kind: _arrays(_MEANS, each) for kind, each in state["means"].items()}


def _bytes(arrays: Mapping[str, array[Any]]) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in arrays.items()}


def _arrays(kind: str, state: Mapping[str, bytes]) -> dict[str, array[Any]]:
    return {name: array(kind, values) for name, values in state.items()}
