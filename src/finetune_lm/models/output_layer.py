"""Logits at the positions that are asked about, and at no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# How far the logits may be from those of the plain model, relative to the largest: float32 sums in
# another order differ by some 1e-6, a model that does something else by far more.
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
_TOLERANCE_OF_HALF_PRECISION = 2e-2


class OutputLayer:
    """A model's last layer, which makes logits of hidden states, fed with some positions only.

    The layer is the largest one of a small model and its outputs the largest of its tensors, while
    padding and ignored labels need no logits. What is selected before the layer comes out as it
    would if it were selected behind it, unless a model does something unusual there. That is looked
    at once, with the first batch, and where it differs the model is called as usual.

    Args:
        model: A transformers model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        find = getattr(model, "get_output_embeddings", None)
        self._layer = find() if find is not None else None
        self._can_select: bool | None = None if self._layer is not None else False
        self._can_resume: bool | None = None if self._layer is not None else False

    def logits(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        """Logits at some positions, with gradients if they are enabled.

        Args:
            inputs: What the model is called with, without labels.
            rows: The example of each position: (k,).
            positions: Its place in that example: (k,).

        Returns:
            (k, vocabulary).
        """
        if not self._selects(inputs, rows, positions):
            plain: Tensor = self._model(**inputs).logits[rows, positions]
            return plain
        return self._selected(inputs, rows, positions)[1]

    def hidden(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor | None:
        """What the last layer is fed at some positions, from which `of_hidden` makes the logits.

        Returns:
            (k, width of the layer); None for a model that has no such layer, or that changes the
            logits behind it.
        """
        if not self._selects(inputs, rows, positions) or not self._can_resume:
            return None
        return self._selected(inputs, rows, positions)[0]

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """The logits that the last layer makes of what it is fed: (k, vocabulary)."""
        assert self._layer is not None
        logits: Tensor = self._layer(hidden)
        return logits

    def _selected(
        self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        with _fed_with(self._layer, rows, positions) as fed:
            logits = self._model(**inputs).logits
        return fed[0], logits

    def _selects(self, inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> bool:
        """Whether selecting before the layer is the same as behind it; found out once."""
        if self._can_select is None:
            import torch

            was_training = self._model.training
            self._model.eval()
            try:
                with torch.no_grad():
                    plain = self._model(**inputs).logits[rows, positions]
                    hidden, selected = self._selected(inputs, rows, positions)
                    self._can_select = _same(selected, plain)
                    self._can_resume = self._can_select and _same(self.of_hidden(hidden), plain)
            except Exception:
                # The layer is called in a way of its own, or shapes are fixed behind it.
                self._can_select = self._can_resume = False
            finally:
                self._model.train(was_training)
        return self._can_select


@contextmanager
def _fed_with(layer: Any, rows: Tensor, positions: Tensor) -> Iterator[list[Tensor]]:
    """Let a layer see only some positions of what it is called with; yields what it saw."""
    fed: list[Tensor] = []

    def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        fed.append(args[0][rows, positions])
        return (fed[-1], *args[1:])

    handle = layer.register_forward_pre_hook(select)
    try:
        yield fed
    finally:
        handle.remove()


def _same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    kind = str(expected.dtype).removeprefix("torch.")
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    tolerance = _TOLERANCE.get(kind, _TOLERANCE_OF_HALF_PRECISION) * max(largest, 1.0)
    return bool(((found - expected).abs() <= tolerance).all())
