"""Whether an optimizer does to parts of a parameter what it does to the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_lm.arguments.references import short_name
from finetune_lm.errors import first_line
from finetune_lm.models.sharding import split_evenly
from finetune_lm.ranks import world

_WITHIN = 1e-4
_LONGEST = 200
"""Of what an error says."""


def parts_problem(cls: Any, kwargs: Mapping[str, Any]) -> str | None:
    """What goes wrong if ranks hold parts of the parameters of an optimizer; None if nothing does.

    A matrix and a vector are tried out, for two steps each. All ranks have to ask.

    Args:
        cls: The optimizer's class.
        kwargs: What it is made with.
    """
    import torch

    generator = torch.Generator().manual_seed(1)
    for shape in ((2 * world().size + 1, 3), (2 * world().size + 1,)):
        weights, *gradients = (torch.randn(shape, generator=generator) for _ in range(3))
        try:
            whole = _after(cls, kwargs, weights.clone(), gradients)
        except Exception:
            continue  # not for such a parameter, or of no use at all, which is told elsewhere
        problem = None
        try:
            split = _after(cls, kwargs, split_evenly(weights), map(split_evenly, gradients))
            if not torch.allclose(split.full_tensor(), whole, rtol=_WITHIN, atol=_WITHIN):
                problem = "its updates differ."
        except Exception as error:
            problem = first_line(error)
        problem = next(filter(None, world().gather(problem)), None)
        if problem:
            return (
                f"fsdp splits parameters among processes, and {short_name(cls)} does not work on "
                f"parts of them: {problem[:_LONGEST].rstrip('.')}. Take another optimizer, such as "
                f"torch.optim.AdamW."
            )
    return None


def _after(cls: Any, kwargs: Mapping[str, Any], weights: Any, gradients: Any) -> Any:
    """A parameter after some steps."""
    import torch

    parameter = torch.nn.Parameter(weights)
    optimizer = cls(params=[parameter], **kwargs)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach()
