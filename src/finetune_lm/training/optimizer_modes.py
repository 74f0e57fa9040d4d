"""Optimizers that learn with other weights than those that the model is judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_lm.model_modifiers.callbacks import Callbacks


def set_mode(optimizer: Any, callbacks: Callbacks, *, learning: bool) -> None:
    """Let an optimizer put those weights into the model that the next thing is to be done with.

    Schedule-free optimizers have two sets: ``train()`` puts the one into the model with which
    gradients are computed, ``eval()`` the average that validation, tests and the saved model are
    about. Other optimizers, which have no such methods, are left alone.

    Args:
        optimizer: The optimizer.
        callbacks: What they freeze stays as it is.
        learning: Whether steps come next.
    """
    switch = _switch(optimizer, learning=learning)
    if switch is not None:
        with callbacks.frozen():
            switch()


def has_modes(optimizer: Any) -> bool:
    """Whether an optimizer may have two sets of weights."""
    return _switch(optimizer, learning=False) is not None


def _switch(optimizer: Any, *, learning: bool) -> Callable[[], object] | None:
    # Accelerate's wrapper has both methods, whatever is inside.
    inner = getattr(optimizer, "optimizer", optimizer)
    switch = getattr(inner, "train" if learning else "eval", None)
    return switch if callable(switch) else None
