"""A model that is looked at, in passing, while it may be learning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_learning(model: Any) -> Iterator[None]:
    """Inside, a model is in eval mode and builds no graph; then it is in the mode it was in."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
