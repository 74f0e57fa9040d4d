"""A model and what makes it learn, and one update of its weights, from one batch or several."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.hooks import PRE_TRAIN_STEP
from finetune_lm.errors import users_code
from finetune_lm.evaluation.splits import Split
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.sharding import is_sharded
from finetune_lm.models.untouched import keep_apart
from finetune_lm.ranks import world
from finetune_lm.runs.device import renew_scaler
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.schedule import Schedule, make_schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

    import accelerate
    import torch
    from torch import Tensor

    from finetune_lm.training.divided_updates import DividedUpdates


@dataclass(frozen=True)
class Learner:
    """A model and what makes it learn.

    Attributes:
        model: The model.
        optimizer: Updates its parameters.
        accelerator: Says on which device and in which precision.
        callbacks: Act at the points of its training.
        schedule: Changes the learning rate; None if it stays as it is.
        divided: How several processes divide the updates; None if each makes all of them.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    accelerator: accelerate.Accelerator
    callbacks: Callbacks = field(default_factory=Callbacks)
    schedule: Schedule | None = None
    divided: DividedUpdates | None = None

    @property
    def lr(self) -> float | None:
        """The learning rate of the next step; None for an optimizer that has none.

        Of several groups it is that of the first, in which the parameters are that are in no other.
        """
        lr = self.optimizer.param_groups[0].get("lr")
        return None if lr is None else float(lr)


class Update:
    """Collects the gradients of batches, and makes an update when there are enough of them.

    The update is that of one large batch: each batch counts by its labels. How many there will be
    is not known before the last batch, so the first batch weighs 1, another one as many times that
    as it has labels, and all is divided by the sum in the end.

    Args:
        learner: What learns.
        n_batches: How many batches make an update.
        max_grad_norm: Gradients whose norm is larger are made smaller, to this norm; None for
            leaving them as they are.
    """

    def __init__(
        self, learner: Learner, n_batches: int = 1, max_grad_norm: float | None = None
    ) -> None:
        self._learner = learner
        self._n_wanted = n_batches
        self._max_grad_norm = max_grad_norm
        self._is_sharded = is_sharded(learner.model)
        self.n_done = 0
        """How many updates were made."""
        self._n_batches = 0
        self._n_labels = 0
        self._n_labels_of_first = 0
        self._last_batch = -1

    @property
    def is_under_way(self) -> bool:
        """Whether there are gradients that no update was made of yet."""
        return self._n_batches > 0

    def add(self, loss: Tensor | None, n_labels: int, epoch: int, batch: int) -> None:
        """Add the gradients of a batch, and make the update if it is the last one that is wanted.

        Args:
            loss: The batch's loss, a mean over its labels: a tensor of one value; of several ranks
                what this one adds to it, None for nothing.
            n_labels: How many labels counted in it, at least one.
            epoch: The epoch.
            batch: The batch's number in it.
        """
        if not self._n_batches:
            self._n_labels_of_first = n_labels
        elif loss is not None:
            loss = loss * (n_labels / self._n_labels_of_first)
        if loss is not None:
            self._learner.accelerator.backward(loss)
        self._n_batches += 1
        self._n_labels += n_labels
        self._last_batch = batch
        if self._n_batches == self._n_wanted:
            self.make(epoch)

    def make(self, epoch: int) -> None:
        """Update the weights with the gradients of the batches that there are."""
        learner, batch = self._learner, self._last_batch
        optimizer, callbacks, divided = learner.optimizer, learner.callbacks, learner.divided
        updated = list(learner.model.parameters() if divided is None else divided.parts)
        if divided is not None:
            divided.add_up()
        elif not self._is_sharded:  # else they are added up as they come
            world().add_up(updated)
        # In half precision the gradients are those of a loss that was made larger.
        learner.accelerator.unscale_gradients(optimizer)
        if self._n_batches > 1:
            _multiply_gradients(updated, self._n_labels_of_first / self._n_labels)
        callbacks.run(PRE_TRAIN_STEP, epoch, batch)
        if self._max_grad_norm is not None:
            clip = divided.clip if divided is not None else partial(_clip_gradients, updated)
            clip(self._max_grad_norm)
        if divided is not None and callbacks.act_at(PRE_TRAIN_STEP):
            divided.wait()  # they have kept weights of all parts
        was_done = _step(optimizer, learner.accelerator.scaler)
        if divided is not None:
            divided.wait()
        self.n_done += was_done
        callbacks.after_step(epoch, batch)
        callbacks.run("post_train_step", epoch, batch)
        optimizer.zero_grad()
        if divided is not None:
            divided.forget_gradients()
        if learner.schedule is not None and was_done:
            learner.schedule.step_is_done()
        self._n_batches = self._n_labels = 0


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
    for each in loaded.modes:
        keep_apart(each.model)
    optimizer = make_optimizer(data_args, loaded.model)
    n_batches = math.ceil(len(training.dataset) / training.batch_size)
    schedule = make_schedule(data_args, optimizer, n_batches)
    renew_scaler(accelerator)
    # Not for training: accelerate would wrap the model, where there are several ranks, in what
    # takes the mean of their means.
    model, *_ = [accelerator.prepare_model(m, evaluation_mode=True) for m in _modes(loaded)]
    optimizer = accelerator.prepare_optimizer(optimizer)
    return Learner(model, optimizer, accelerator, callbacks, schedule)


def _modes(loaded: LoadedModel) -> list[Any]:
    """A model in all of its modes, the one of training first."""
    return [loaded.model, *(each.model for each in loaded.modes if each.mode != loaded.mode)]


def _step(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None) -> bool:
    """Update the weights.

    Returns:
        Whether that was done. In half precision a step whose gradients are too large for it is left
        out, and the loss is scaled by less from then on.
    """
    # The optimizer's own word is not to be had where it looks for such gradients itself ("fused").
    before = scaler.get_scale() if scaler is not None else 0.0
    with users_code(f"train_optimizer {type(getattr(optimizer, 'optimizer', optimizer)).__name__}"):
        optimizer.step()
    return scaler is None or scaler.get_scale() >= before


def _multiply_gradients(parameters: Iterable[Any], factor: float) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)


def _clip_gradients(parameters: Iterable[Any], max_norm: float) -> None:
    from torch.nn.utils import clip_grad_norm_

    clip_grad_norm_(parameters, max_norm)
