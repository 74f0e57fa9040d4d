"""What models do with the logits that their last layer makes.

Most leave them as they are. Gemma 2 bounds them, Cohere's and IBM's models scale them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def behind_layer(model: Any) -> Callable[[Tensor], Tensor] | None:
    """What a model does with logits behind its last layer, in their own memory.

    It is what its configuration says; whether the model does so is to be looked at.

    Args:
        model: The model.

    Returns:
        None for a model that leaves them as they are.
    """
    config = getattr(model, "config", None)
    bound = getattr(config, "final_logit_softcapping", None)
    if bound:
        return lambda logits: logits.div_(bound).tanh_().mul_(bound)
    factor = getattr(config, "logit_scale", None)
    if factor:
        return lambda logits: logits.mul_(factor)
    divisor = getattr(config, "logits_scaling", None)
    if divisor:
        return lambda logits: logits.div_(divisor)
    return None
