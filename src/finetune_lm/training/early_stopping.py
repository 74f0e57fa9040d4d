"""When to stop, and which epoch was best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from finetune_lm.constants import BY_LOSS, BY_PAIR_ACCURACY, BY_PAIR_DIFFERENCE
from finetune_lm.recording.columns import LOSS

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

_NUMBERS = {BY_LOSS: (LOSS, 1), BY_PAIR_ACCURACY: (BY_PAIR_ACCURACY, -1)}
_NUMBERS[BY_PAIR_DIFFERENCE] = BY_PAIR_DIFFERENCE, -1
"""Where ``select_by`` finds its number among those of the validation data, and its sign."""


def judged_by(select_by: str, validation: Mapping[str, float]) -> float:
    """The number by which epochs are compared; the lower the better.

    Args:
        select_by: Which, a name of `finetune_lm.constants.SELECT_BY`.
        validation: What the validation data came to.
    """
    name, sign = _NUMBERS[select_by]
    return sign * validation[name]


@dataclass
class EarlyStopping:
    """Follows the validation loss, or what else is judged by, from epoch to epoch.

    Attributes:
        patience: Stop after this many epochs in a row without improvement; None for never.
        delta: By how much the loss must fall to count as improvement. It is measured from where it
            last did, so that slow progress counts when it has added up.
        min_epochs: How many epochs to complete in any case.
        select_by: What is judged by.
        best_loss: The validation loss of the best epoch so far.
        best_epoch: Which one that is.
        epochs_without_improvement: How many there were in a row by now.
        n_epochs: How many epochs have been completed.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.update(epoch, loss) for epoch, loss in enumerate([3.0, 2.0, 2.5, 2.0])]
        [True, True, False, False]
        >>> stopping.should_stop(), stopping.best_epoch
        (True, 1)
    """

    patience: int | None = None
    delta: float = 0.0
    min_epochs: int = 0
    select_by: str = BY_LOSS
    best_loss: float = math.inf
    best_epoch: int | None = None
    epochs_without_improvement: int = 0
    n_epochs: int = 0
    _best: float = math.inf
    _to_beat: float = math.inf

    @classmethod
    def of(cls, args: DataTrainingArguments) -> Self:
        """As a run's arguments say."""
        return cls(args.patience, args.delta, args.min_epochs, args.select_by)

    def update(self, epoch: int, loss: float, judged: float | None = None) -> bool:
        """Take in an epoch. One whose numbers are not finite is never an improvement.

        Args:
            epoch: The epoch.
            loss: Its validation loss.
            judged: What it is judged by, the lower the better; by default the loss.

        Returns:
            Whether it is the best so far.
        """
        self.n_epochs += 1
        judged = loss if judged is None else judged
        if not (math.isfinite(loss) and math.isfinite(judged)):
            self.epochs_without_improvement += 1
            return False
        if judged < self._to_beat - self.delta:
            self._to_beat = judged
            self.epochs_without_improvement = 0
        else:
            self.epochs_without_improvement += 1
        is_best = judged < self._best
        if is_best:
            self._best, self.best_loss, self.best_epoch = judged, loss, epoch
        return is_best

    @property
    def best(self) -> tuple[int | None, float]:
        """The best epoch, None if there is none yet, and the number that it was chosen by."""
        return self.best_epoch, _NUMBERS[self.select_by][1] * self._best

    @property
    def patience_left(self) -> int | None:
        """How many more epochs without improvement there may be."""
        if self.patience is None:
            return None
        return max(self.patience - self.epochs_without_improvement, 0)

    def facts(self) -> dict[str, Any]:
        """What is put on record of the best epoch."""
        there = self.best_epoch is not None
        found: dict[str, Any] = {
            "best_epoch": self.best_epoch,
            "best_validation_loss": self.best_loss if there else None,
        }
        if self.select_by != BY_LOSS:
            found[f"best_{self.select_by}"] = self.best[1] if there else None
        return found

    def state_dict(self) -> dict[str, Any]:
        """What was found so far. Patience and the like come from the run's arguments."""
        found = ("best_loss", "best_epoch", "epochs_without_improvement", "n_epochs")
        return {name: getattr(self, name) for name in (*found, "_best", "_to_beat")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name in self.state_dict():
            setattr(self, name, state[name])

    def should_stop(self) -> bool:
        """Whether enough epochs have gone by without improvement."""
        if self.patience is None or self.n_epochs < self.min_epochs:
            return False
        # A patience of 0 stops at the first epoch without improvement, as 1 does.
        return self.epochs_without_improvement >= max(self.patience, 1)
