"""The state that every trial begins from: the model as it was loaded, the generators as they were.

A trial must not know what trials there were before it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from finetune_lm.training.best_state import BestState

# What a callback or a loss may hang onto a module, and forget.
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks"),
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@dataclass
class _ModuleState:
    """One module: its own tensors and flags, without those of the modules in it."""

    module: Any
    parameters: dict[str, Any]
    buffers: dict[str, Any]
    submodules: dict[str, Any]
    hooks: dict[str, dict[Any, Any]]
    is_training: bool


class InitialState:
    """A model's weights, buffers, flags and hooks, to be put back in place.

    The copy is on the device where the model is, and takes as much memory as the model. Weights
    that are tied are kept once.

    Args:
        model: The model, as a trial is to find it.

    Example:
        >>> state = InitialState(model)  # doctest: +SKIP
        >>> train(model)  # doctest: +SKIP
        >>> state.restore()  # doctest: +SKIP
    """

    def __init__(self, model: Any) -> None:
        self._modules = [
            _ModuleState(
                module,
                dict(module._parameters),
                dict(module._buffers),
                dict(module._modules),
                {name: dict(getattr(module, name, {})) for name in _HOOKS},
                module.training,
            )
            for module in model.modules()
        ]
        self._parameters = [(p, p.requires_grad, _tensor_hooks(p)) for p in model.parameters()]
        self._weights = BestState(model)
        self._weights.keep()

    def restore(self) -> None:
        """Put everything back, bit for bit."""
        for state in self._modules:
            module = state.module
            # Also those that were replaced, added or taken away.
            _refill(module._parameters, state.parameters)
            _refill(module._buffers, state.buffers)
            _refill(module._modules, state.submodules)
            for name, kept in state.hooks.items():
                _refill(getattr(module, name, None), kept)
            module.training = state.is_training
        for parameter, requires_grad, hooks in self._parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
            for name in _TENSOR_HOOKS:
                _refill(getattr(parameter, name, None), hooks[name])
        self._weights.restore()


def _refill(dictionary: dict[Any, Any] | None, kept: dict[Any, Any]) -> None:
    """Make a dictionary what it was, also where others hold on to it."""
    if dictionary is not None:
        dictionary.clear()
        dictionary.update(kept)


def _tensor_hooks(tensor: Any) -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(tensor, name, None) or {}) for name in _TENSOR_HOOKS}


class Generators:
    """The state of all global generators of random numbers, to be put back."""

    def __init__(self) -> None:
        import numpy as np
        import torch

        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        # Asking for them would take hold of a GPU that is not wanted.
        uses_cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._cuda = torch.cuda.get_rng_state_all() if uses_cuda else []
        self._mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore(self) -> None:
        """Put the generators back to where they were."""
        import numpy as np
        import torch

        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._mps is not None:
            torch.mps.set_rng_state(self._mps)
