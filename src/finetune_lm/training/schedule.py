"""The learning rate from step to step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.calls import NO_DEFAULT, taken_by, takes_named
from finetune_lm.arguments.optimizer_settings import (
    N_STABLE,
    N_TRAINING,
    N_WARMUP,
    WARMUP_RATIO,
    lacking_totals,
    maker_of,
)
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError, users_code

if TYPE_CHECKING:
    import torch

    from finetune_lm.arguments import DataTrainingArguments


@dataclass(frozen=True)
class Schedule:
    """Changes the learning rate after steps, or after epochs by the validation loss.

    Attributes:
        scheduler: Like those of ``torch.optim.lr_scheduler``.
        name: What the user calls it.
        follows_loss: Whether its ``step`` is told a loss, as that of ``ReduceLROnPlateau`` is; it
            then has one step in an epoch.
    """

    scheduler: Any
    name: str
    follows_loss: bool

    def step_is_done(self) -> None:
        """Say that the optimizer has made a step.

        Raises:
            UserError: If the schedule is at its end and has no learning rate for another step.
        """
        if self.follows_loss:
            return
        try:
            with users_code(f"lr_scheduler {self.name}"):
                self.scheduler.step()
        except ValueError as error:
            raise UserError(
                f"lr_scheduler {self.name} ended before the training did: {error} Give "
                "lr_scheduler_kwargs enough steps."
            ) from error

    def epoch_is_over(self, validation_loss: float) -> None:
        """Say that an epoch is over. A loss that is not finite counts as no improvement."""
        if self.follows_loss:
            with users_code(f"lr_scheduler {self.name}"):
                self.scheduler.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is."""
        state: dict[str, Any] = self.scheduler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.scheduler.load_state_dict(dict(state))


def make_schedule(
    args: DataTrainingArguments, optimizer: torch.optim.Optimizer, n_batches: int
) -> Schedule | None:
    """The schedule that the arguments name; None if they name none.

    Args:
        args: The schedule, its keyword arguments, epochs and how many batches make a step.
        optimizer: Whose learning rate it changes.
        n_batches: How many batches there are in an epoch.

    Raises:
        UserError: If it does not accept the arguments given for it.
    """
    if args.lr_scheduler is None:
        return None
    maker = maker_of(args.lr_scheduler)
    given = args.lr_scheduler_kwargs
    name = args.lr_scheduler if isinstance(args.lr_scheduler, str) else short_name(maker)
    n_steps = args.epochs * math.ceil(n_batches / args.gradient_accumulation_steps)
    try:
        with users_code(f"lr_scheduler {name}"):
            scheduler = maker(optimizer, **_complete(given, maker, n_steps))
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "nothing"
        raise UserError(
            f"lr_scheduler {name} does not take what lr_scheduler_kwargs gives ({shown}): {error}"
        ) from error
    if not all(callable(getattr(scheduler, each, None)) for each in _METHODS):
        raise UserError(
            f"lr_scheduler must be a name, or a class like torch.optim.lr_scheduler.StepLR, whose "
            f"objects have {', '.join(_METHODS)}, but is {name}."
        )
    return Schedule(scheduler, name, _is_told_loss(scheduler))


_METHODS = ("step", "state_dict", "load_state_dict")


def _complete(given: Mapping[str, Any], maker: Any, n_steps: int) -> dict[str, Any]:
    """The keyword arguments with those that follow from the length of the run."""
    kwargs = {**given, **dict.fromkeys(lacking_totals(maker, given), n_steps)}
    if takes_named(maker, N_TRAINING) and kwargs.get(N_STABLE) is None:
        n_steps = kwargs.setdefault(N_TRAINING, n_steps)
    if takes_named(maker, N_WARMUP) and not takes_named(maker, WARMUP_RATIO):
        ratio = kwargs.pop(WARMUP_RATIO, 0)
        kwargs.setdefault(N_WARMUP, math.ceil(ratio * n_steps))
    return kwargs


def _is_told_loss(scheduler: Any) -> bool:
    takes = taken_by(scheduler.step)
    return takes is not None and any(p.default is NO_DEFAULT for p in takes.positional[:1])
