"""Several optimizers, each with parameters of its own, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class SeveralOptimizers(torch.optim.Optimizer):
    """Optimizers that make their steps together.

    ``param_groups`` are those of the optimizers themselves, in their order, so that a schedule
    changes the learning rates of all. ``defaults`` are what all of them have.

    Args:
        optimizers: The optimizers. No parameter is in two of them.

    Example:
        >>> one, two = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
        >>> both = SeveralOptimizers([torch.optim.Muon([one]), torch.optim.SGD([two], lr=0.5)])
        >>> [group["lr"] for group in both.param_groups]
        [0.001, 0.5]
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        first, *others = optimizers
        defaults = {
            key: value
            for key, value in first.defaults.items()
            if all(key in other.defaults for other in others)
        }
        self.optimizers = list(optimizers)
        super().__init__([group for each in optimizers for group in each.param_groups], defaults)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let each make a step from the gradients that there are."""
        if closure is not None:
            raise ValueError("several optimizers have no common closure.")
        for optimizer in self.optimizers:
            optimizer.step()

    def train(self) -> None:
        """Tell those that want to know it that steps come next."""
        self._tell("train")

    def eval(self) -> None:
        """Tell those that want to know it that no steps come next."""
        self._tell("eval")

    def _tell(self, mode: str) -> None:
        for optimizer in self.optimizers:
            if callable(switch := getattr(optimizer, mode, None)):
                switch()

    def state_dict(self) -> dict[str, Any]:
        """The state of each, in their order."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # Loading has made new dictionaries of their groups.
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]
