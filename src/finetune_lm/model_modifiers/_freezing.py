"""What callbacks that freeze parts of a model have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from finetune_lm.arguments.hooks import PRE_TRAIN_STEP
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._frozen_entries import FrozenEntries
from finetune_lm.model_modifiers._parameters import Marked
from finetune_lm.model_modifiers.model_callback import ModelCallback


class FreezingCallback(ModelCallback):
    """Keeps parts of a model as they are, to the last bit, whatever the optimizer.

    A parameter that is frozen as a whole gets no gradients from the beginning, so that it needs no
    memory for them and no optimizer touches it. Where some entries of one are frozen, their
    gradients are set to zero before each step, and what the optimizer moves all the same (by weight
    decay, by momentum) is put back after it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    hook_points: ClassVar[tuple[str, ...] | None] = (PRE_TRAIN_STEP,)
    draws_random_numbers: ClassVar[bool] = False

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self._entries: list[FrozenEntries] = []

    def freeze(self, frozen: Marked) -> None:
        """Freeze entries from now on.

        Args:
            frozen: The entries: masks that broadcast to the shapes of their parameters.

        Raises:
            UserError: If nothing is left to train.
        """
        for parameter, mask in frozen.items():
            if mask.all():
                parameter.requires_grad_(False)
            elif mask.any():
                self._entries.append(FrozenEntries(parameter, mask))
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise UserError(
                f"{type(self).__name__} must leave something of the model to train, but all of its "
                f"parameters are frozen."
            )

    def freeze_all_but(self, unfrozen: Marked) -> None:
        """Freeze everything else from now on.

        What is to learn learns also where an adapter has frozen its parameter.

        Args:
            unfrozen: Entries: masks that broadcast to the shapes of their parameters.

        Raises:
            UserError: If nothing is left to train.
        """
        import torch

        for parameter, mask in unfrozen.items():
            if mask.any() and parameter.is_floating_point():
                parameter.requires_grad_(True)
        nothing = torch.zeros((), dtype=torch.bool)
        self.freeze({p: ~unfrozen.get(p, nothing) for p in self.model.parameters()})

    def __call__(self, epoch: int | None, batch: int | None) -> None:
        """Set the gradients of frozen entries to zero, and keep their values."""
        for entries in self._entries:
            entries.before_step()

    def after_step(self, epoch: int, batch: int) -> None:
        """Put back what the optimizer has moved of them."""
        self.put_back()

    def keep(self) -> None:
        """Keep the values of frozen entries, for something that moves them without gradients."""
        for entries in self._entries:
            entries.keep()

    def put_back(self) -> None:
        """Put frozen entries back to what they were when they were kept."""
        for entries in self._entries:
            entries.put_back()
