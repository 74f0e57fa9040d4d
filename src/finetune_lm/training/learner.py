"""A model and what makes it learn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.evaluation.splits import Split
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.models.loading import LoadedModel
from finetune_lm.runs.device import renew_scaler
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.schedule import Schedule, make_schedule

if TYPE_CHECKING:
    import accelerate
    import torch


@dataclass(frozen=True)
class Learner:
    """A model and what makes it learn.

    Attributes:
        model: The model.
        optimizer: Updates its parameters.
        accelerator: Says on which device and in which precision.
        callbacks: Act at the points of its training.
        schedule: Changes the learning rate; None if it stays as it is.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    accelerator: accelerate.Accelerator
    callbacks: Callbacks = field(default_factory=Callbacks)
    schedule: Schedule | None = None

    @property
    def lr(self) -> float | None:
        """The learning rate of the next step; None for an optimizer that has none.

        Of several groups it is that of the first, in which the parameters are that are in no other.
        """
        lr = self.optimizer.param_groups[0].get("lr")
        return None if lr is None else float(lr)


def make_learner(
    data_args: DataTrainingArguments,
    loaded: LoadedModel,
    accelerator: accelerate.Accelerator,
    callbacks: Callbacks,
    training: Split,
) -> Learner:
    """Make the optimizer and the schedule that the arguments name, and put together all.

    Raises:
        UserError: If optimizer or schedule do not accept what is given for them.
    """
    optimizer = make_optimizer(data_args, loaded.model)
    n_batches = math.ceil(len(training.dataset) / training.batch_size)
    schedule = make_schedule(data_args, optimizer, n_batches)
    renew_scaler(accelerator)
    model, optimizer = accelerator.prepare(loaded.model, optimizer)
    return Learner(model, optimizer, accelerator, callbacks, schedule)
