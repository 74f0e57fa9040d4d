"""GPT-2's activation function as one operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any


def replaceable(model: Any) -> list[Any]:
    """The modules of a model whose function torch has as one operation.

    transformers writes out the approximation of GELU by tanh, as eight operations and some twelve
    of the backward pass, each of which goes through all of a layer's values.

    None where the backward pass computes layers again, since it would do it the usual way.
    """
    from transformers.activations import NewGELUActivation

    if computes_again(model):
        return []
    return [part for part in model.modules() if type(part) is NewGELUActivation]


def computes_again(model: Any) -> bool:
    """Whether the backward pass computes layers again: gradient checkpointing, or Reformer."""
    return any(
        getattr(part, "gradient_checkpointing", False) or hasattr(part, "backward_pass")
        for part in model.modules()
    )


@contextmanager
def in_one_operation(modules: Sequence[Any]) -> Iterator[None]:
    """Let modules that are `replaceable` compute the same in one operation."""
    from torch.nn.functional import gelu

    for module in modules:
        module.forward = partial(gelu, approximate="tanh")
    try:
        yield
    finally:
        for module in modules:
            del module.forward
