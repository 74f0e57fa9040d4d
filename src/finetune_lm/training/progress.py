"""Where a training is: epoch, batch, and the order of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.evaluation.passes import Pass
from finetune_lm.evaluation.probes import ProbeProgress
from finetune_lm.messages import say
from finetune_lm.randomness import SHUFFLING, stream_seed

if TYPE_CHECKING:
    from finetune_lm.data.ragged_arrays import IntArray

BEFORE_TRAINING = -1
"""The epoch of rows that were measured before anything was learned."""


class Progress:
    """How far a training has come, and the generator that orders its examples.

    Args:
        seed: The run's. The order of the examples is a stream of its own of it.
        first_epoch: The epoch in which it begins.

    Attributes:
        epoch: The epoch under way.
        training: Its pass through the training data.
        validation: Its pass through the validation data.
        probes: Which passes over the probes there were.
        n_updates: How many updates were made, in all epochs.
    """

    def __init__(self, seed: int, first_epoch: int = 0) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(stream_seed(seed, SHUFFLING))
        self._first_epoch = first_epoch
        self._n_skipped = 0
        self._n_unjudged = 0
        self.n_updates = 0
        self.probes = ProbeProgress()
        self.training = Pass()
        self.validation = Pass()
        self.begin_epoch(first_epoch)

    @property
    def n_skipped(self) -> int:
        """How many steps were left out because a loss was not finite."""
        return self._n_skipped + self.training.n_not_finite

    @property
    def n_unjudged(self) -> int:
        """How many epochs had a validation loss that was not finite."""
        return self._n_unjudged + (self.validation.n_not_finite > 0)

    @property
    def has_begun(self) -> bool:
        """Whether anything was learned or measured yet."""
        return (
            self.epoch > self._first_epoch
            or self.training.has_begun
            or self.validation.has_begun
            or self.probes.has_begun
        )

    @property
    def is_learning(self) -> bool:
        """Whether it is in the middle of the training data."""
        return self.training.has_begun and not self.validation.has_begun

    def begin_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._n_skipped, self._n_unjudged = self.n_skipped, self.n_unjudged
        self.epoch = epoch
        self.training = Pass()
        self.validation = Pass()
        self._before_order = self._generator.get_state()

    def tell_of_skipped(self) -> None:
        """Say how much was left out because of losses that were not finite, if anything was."""
        if self.n_skipped:
            say(
                f"{self.n_skipped} steps were skipped because a loss was not finite; their rows "
                f"are in the table."
            )
        if self.n_unjudged:
            say(
                f"After {self.n_unjudged} epochs the validation loss was not finite, which counts "
                f"as no improvement."
            )

    def order(self, n_examples: int) -> IntArray:
        """A new order of the training examples, once an epoch: (n_examples,)."""
        import torch

        order: IntArray = torch.randperm(n_examples, generator=self._generator).numpy()
        return order

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch}"]
        for name, part in (("train", self.training), ("validation", self.validation)):
            if part.n_batches:
                parts = [parts[0], f"{name} batch {part.n_batches}"]
        if self.probes.is_under_way:
            parts.append("in the middle of the probes")
        return ", ".join(parts)

    def state_dict(self) -> dict[str, Any]:
        """Where it is, in types that can be kept.

        The generator is as it was when the epoch began: who takes an epoch up asks for its order
        again.
        """
        return {
            "epoch": self.epoch,
            "training": self.training.state_dict(),
            "validation": self.validation.state_dict(),
            "probes": self.probes.state_dict(),
            "n_updates": self.n_updates,
            "n_skipped": self._n_skipped,
            "n_unjudged": self._n_unjudged,
            "generator": self._before_order,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._generator.set_state(state["generator"])
        self.begin_epoch(state["epoch"])
        self._n_skipped, self._n_unjudged = state["n_skipped"], state["n_unjudged"]
        self.training.load_state_dict(state["training"])
        self.validation.load_state_dict(state["validation"])
        self.probes.load_state_dict(state["probes"])
        self.n_updates = state["n_updates"]
