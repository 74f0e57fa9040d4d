"""Whether a function or class takes the keyword arguments that it is given."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from finetune_lm.arguments.nearest import did_you_mean


def keyword_problems(
    prefix: str,
    name: str,
    own: Mapping[str, inspect.Parameter],
    given: Mapping[str, Any],
    *,
    reserved: Collection[str],
    takes_any: bool,
    is_used: bool = True,
) -> list[str]:
    """Return a message for each keyword argument that there is no use for, or that is lacking.

    Args:
        prefix: The dotted name under which they are given, for messages.
        name: What the function is called.
        own: The parameters that may be given.
        given: The keyword arguments.
        reserved: Parameters that are given in any case, so not here.
        takes_any: Whether it takes arguments of any other name as well.
        is_used: Whether it will be called; otherwise nothing is lacking.
    """
    takes = f"takes {', '.join(own)}" if own else "takes none"
    problems = [
        f"{prefix}.{key} is no argument of {name}, which {takes}."
        f"{did_you_mean(key, own, f'{prefix}.')}"
        for key in given
        if key not in own and (key in reserved or not takes_any)
    ]
    if is_used:
        problems += [
            f"{prefix}.{key} must be given, because {name} needs it."
            for key, parameter in own.items()
            if parameter.default is parameter.empty and key not in given
        ]
    return problems
