"""How a function that makes one loss of several is given them: stacked, or one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_lm.arguments.calls import NO_DEFAULT, taken_by
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError, first_line


def takes_several(function: Callable[..., Any], n: int) -> bool:
    """Whether a function is given its losses one by one and not stacked in a tensor of shape (n,).

    The parameters without defaults decide: one is for the stacked tensor; as many as there are
    losses, or ``*losses``, are for one each. What has a default is a setting of the function's.

    Args:
        function: The function. One that does not say what it takes, such as ``torch.sum``, is given
            the stacked tensor.
        n: How many losses there are.

    Raises:
        UserError: If it can be given them neither way.

    Example:
        >>> takes_several(lambda losses, power=1.0: (losses**power).sum(), 2)
        False
        >>> takes_several(lambda first, second, weight=0.5: first + weight * second, 2)
        True
    """
    # A torch.nn.Module takes anything and hands it on.
    takes = taken_by(getattr(function, "forward", None) or function)
    if takes is None:
        _try(function, n)
        return False
    without_default = [p for p in takes.parameters.values() if p.default is NO_DEFAULT]
    needed = [p for p in takes.positional if p.default is NO_DEFAULT]
    named = [p for p in without_default if p.kind is p.KEYWORD_ONLY]
    if named or len(needed) > n or not (takes.takes_any_number or len(needed) in (1, n)):
        names = ", ".join(p.name for p in (*needed, *named)) or "nothing"
        raise UserError(
            f"{short_name(function)} must take one tensor of all losses, or each of the {n}, as "
            f"its arguments without defaults, but these are: {names}."
        )
    return takes.takes_any_number or len(needed) > 1


def _try(function: Callable[..., Any], n: int) -> None:
    """See what a function does to losses of 1 that does not say what it takes."""
    import torch

    try:
        total = function(torch.ones(n))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{short_name(function)} must take a tensor of all losses ({n}): {first_line(error)}."
        ) from None
    if not isinstance(total, torch.Tensor) or total.numel() != 1:
        raise UserError(
            f"{short_name(function)} must return a tensor of one value for {n} losses but returned "
            f"{str(total)[:80]}."
        )
