"""Every batch's losses, and the means of epochs, for the plot: a few numbers a batch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from finetune_lm.constants import MODES
from finetune_lm.recording.recorder import Measured, Recorder, named_in_mode

_INTEGERS, _BATCHES, _MEANS = "l", "f", "d"


class LossHistory(Recorder):
    """The losses of each batch of each epoch, and their means, by data set and loss, in order.

    Data sets are ``train`` and ``validation``, of a model in two modes ``train_lm`` and so on.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, array[int]] = {}
        """The epoch of each batch, by data set."""
        self.numbers: dict[str, array[int]] = {}
        """The number of each batch in its epoch, by data set."""
        self.values: dict[str, dict[str, array[float]]] = {}
        """The losses of each batch, by data set and by loss."""
        self.ended: dict[str, array[int]] = {}
        """The epochs that have means, by data set."""
        self.means: dict[str, dict[str, array[float]]] = {}
        """The means of each of them, by data set and by loss."""

    def batch(self, measured: Measured) -> None:
        """Take in a batch, unless one of its losses is no finite number."""
        if measured.is_finite:
            assert measured.losses is not None
            name = named_in_mode(measured.split.dataset_type, measured.split.mode)
            self.add(name, measured.epoch, measured.number, measured.losses)

    def add(self, name: str, epoch: int, number: int, losses: Mapping[str, float]) -> None:
        """Take in a batch of a data set, whose number in its epoch is given."""
        self.epochs.setdefault(name, array(_INTEGERS)).append(epoch)
        self.numbers.setdefault(name, array(_INTEGERS)).append(number)
        by_loss = self.values.setdefault(name, {})
        for loss, value in losses.items():
            by_loss.setdefault(loss, array(_BATCHES)).append(value)

    def modes(self) -> list[str | None]:
        """The modes in which there are losses; None of a model that has one."""
        return [m for m in MODES if any(name.endswith(f"_{m}") for name in self.values)] or [None]

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Take in the means of an epoch.

        They may be given again: a run that is gone on with in a validation has trained already.
        """
        name = named_in_mode(dataset_type, mode)
        ended = self.ended.setdefault(name, array(_INTEGERS))
        if ended and ended[-1] == epoch:
            return
        ended.append(epoch)
        by_loss = self.means.setdefault(name, {})
        for loss, value in means.items():
            by_loss.setdefault(loss, array(_MEANS)).append(value)

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
