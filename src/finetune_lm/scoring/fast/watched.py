"""Modules in whose calls somebody has a part, so that they must be called as usual."""

from __future__ import annotations

from typing import Any


def is_watched(module: Any) -> bool:
    """Whether a module has hooks, or its ``forward`` was replaced."""
    return "forward" in vars(module) or bool(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
    )
