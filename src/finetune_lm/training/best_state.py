"""The best weights so far, kept in memory and put back at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.models.adapters import adapter_of
from finetune_lm.models.sharding import part_of, same_part, split_as, whole_of
from finetune_lm.models.untouched import shared_weights

if TYPE_CHECKING:
    from torch import Tensor


class BestState:
    """A copy of a model's weights, on the device where the model is.

    Made once and overwritten in place from then on. Weights that are tied are kept once; of a model
    that is split among ranks each keeps its part.

    Args:
        model: The model.
        moving: Whether weights that are shared with the untouched model, which nothing moves, are
            left out.
    """

    def __init__(self, model: Any, *, moving: bool = True) -> None:
        self._model = model
        self._moving = moving
        self._copies: dict[str, Tensor] | None = None

    def weights(self) -> dict[str, Tensor] | None:
        """What is kept, whole, by name; None before anything is. All ranks have to ask."""
        if self._copies is None:
            return None
        copies = self._copies
        return {n: whole_of(split_as(weight, copies[n])) for n, weight in self._weights().items()}

    def keep(self) -> None:
        """Take the weights as they are now."""
        import torch

        with torch.no_grad():
            weights = {name: part_of(weight) for name, weight in self._weights().items()}
            if self._copies is None:
                self._copies = {name: weight.clone() for name, weight in weights.items()}
                return
            torch._foreach_copy_([self._copies[name] for name in weights], list(weights.values()))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights that `weights` gave before."""
        self._copies = {
            name: same_part(weights[name], weight).to(weight.device, copy=True)
            for name, weight in self._weights().items()
        }

    def _weights(self) -> dict[str, Tensor]:
        return weights_of(self._model, moving=self._moving)

    def restore(self) -> None:
        """Put the kept weights back into the model, if any were kept."""
        import torch

        if self._copies is not None:
            with torch.no_grad():
                for name, weight in self._weights().items():
                    part_of(weight).copy_(self._copies[name])


def weights_of(model: Any, *, moving: bool = True) -> dict[str, Tensor]:
    """A model's parameters and buffers by name, those that are tied once; not copied.

    Args:
        model: The model.
        moving: Whether those are left out that it shares with the untouched model: nothing moves
            them, and whoever loads the model has them (see `models.untouched`).
    """
    # Both iterate over tied tensors once.
    named = [*model.named_parameters(), *model.named_buffers()]
    fixed = shared_weights(model) if moving else set()
    return {name: tensor.detach() for name, tensor in named if id(tensor) not in fixed}


def put_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Give a model the weights that `weights_of` gave of one like it, whole."""
    import torch

    with torch.no_grad():
        for name, weight in weights_of(model).items():
            part_of(weight).copy_(same_part(weights[name], weight))


def saved_weights(model: Any) -> dict[str, Tensor]:
    """The weights that are saved with a split model, whole. All ranks have to ask.

    Of one with an adapter these are those that are not as they were named, see `whole_again`.
    """
    saved = model.state_dict().keys()
    named = weights_of(model, moving=adapter_of(model) is not None)
    return {name: whole_of(weight) for name, weight in named.items() if name in saved}
