"""The best weights so far, kept in memory and put back at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class BestState:
    """A copy of a model's weights, on the device where the model is.

    Made once and overwritten in place from then on. Weights that are tied are kept once.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._copies: list[Tensor] | None = None

    def keep(self) -> None:
        """Take the weights as they are now."""
        import torch

        with torch.no_grad():
            if self._copies is None:
                self._copies = [tensor.detach().clone() for tensor in self._tensors()]
            for copy, tensor in zip(self._copies, self._tensors(), strict=True):
                copy.copy_(tensor)

    def restore(self) -> None:
        """Put the kept weights back into the model, if any were kept."""
        import torch

        if self._copies is None:
            return
        with torch.no_grad():
            for copy, tensor in zip(self._copies, self._tensors(), strict=True):
                tensor.copy_(copy)

    def _tensors(self) -> list[Tensor]:
        # Both iterate over shared tensors once.
        return [*self._model.parameters(), *self._model.buffers()]
