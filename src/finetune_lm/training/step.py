"""One update of the weights, from one batch or from several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.errors import users_code

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor

    from finetune_lm.training.learner import Learner


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
        self._n_batches = 0
        self._n_labels = 0
        self._n_labels_of_first = 0
        self._last_batch = -1

    @property
    def is_under_way(self) -> bool:
        """Whether there are gradients that no update was made of yet."""
        return self._n_batches > 0

    def add(self, loss: Tensor, n_labels: int, epoch: int, batch: int) -> None:
        """Add the gradients of a batch, and make the update if it is the last one that is wanted.

        Args:
            loss: The batch's loss, a mean over its labels: a tensor of one value.
            n_labels: How many labels counted in it, at least one.
            epoch: The epoch.
            batch: The batch's number in it.
        """
        if not self._n_batches:
            self._n_labels_of_first = n_labels
        else:
            loss = loss * (n_labels / self._n_labels_of_first)
        self._learner.accelerator.backward(loss)
        self._n_batches += 1
        self._n_labels += n_labels
        self._last_batch = batch
        if self._n_batches == self._n_wanted:
            self.make(epoch)

    def make(self, epoch: int) -> None:
        """Update the weights with the gradients of the batches that there are."""
        learner, batch = self._learner, self._last_batch
        optimizer, callbacks = learner.optimizer, learner.callbacks
        # In half precision the gradients are those of a loss that was made larger.
        learner.accelerator.unscale_gradients(optimizer)
        if self._n_batches > 1:
            _multiply_gradients(
                learner.model.parameters(), self._n_labels_of_first / self._n_labels
            )
        callbacks.run("pre_train_step", epoch, batch)
        if self._max_grad_norm is not None:
            _clip_gradients(learner.model.parameters(), self._max_grad_norm)
        was_done = _step(optimizer, learner.accelerator.scaler)
        callbacks.after_step(epoch, batch)
        callbacks.run("post_train_step", epoch, batch)
        optimizer.zero_grad()
        if learner.schedule is not None and was_done:
            learner.schedule.step_is_done()
        self._n_batches = self._n_labels = 0


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
