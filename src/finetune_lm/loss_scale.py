"""By how much a loss is made larger before gradients come of it.

In float16 small gradients would be 0, so the loss is multiplied by a large number first, and the
gradients are divided by it in the end. A loss that takes gradients of its own has to do likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_scaler: ContextVar[Any] = ContextVar("scaler", default=None)


@contextmanager
def loss_scaled_by(scaler: Any) -> Iterator[None]:
    """Let losses know how they will be scaled.

    Args:
        scaler: A ``torch.amp.GradScaler``; None if there is no scaling.
    """
    token = _scaler.set(scaler)
    try:
        yield
    finally:
        _scaler.reset(token)


def scaled(loss: Tensor) -> Tensor:
    """A loss times the factor of the moment."""
    scaler = _scaler.get()
    return loss if scaler is None else scaler.scale(loss)


def unscaled(gradients: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients of a `scaled` loss as those of the loss itself, in float32."""
    import torch

    scaler = _scaler.get()
    if scaler is None:
        return gradients
    device = next((g.device for g in gradients if g is not None), None)
    factor = scaler.scale(torch.ones((), device=device))
    return [g if g is None else g / factor for g in gradients]
