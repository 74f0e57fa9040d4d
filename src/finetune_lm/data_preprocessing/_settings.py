"""What preprocessing functions say of themselves, and checks of the values they are given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from finetune_lm.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])

MASK_PROP = 0.15
MEAN_NOISE_SPAN_LENGTH = 3.0
REPLACEMENT_PROPS = {"mask": 0.8, "random": 0.1, "original": 0.1}
TOLERANCE = 1e-6


def for_tasks(
    *tasks: str, check: Callable[..., object] | None = None, needs_masks: bool = False
) -> Callable[[F], F]:
    """Say which kinds of model a preprocessing function is for.

    With another kind a run ends before anything is loaded. A function that says nothing is for
    every kind.

    Args:
        *tasks: Values of ``model_task``: ``lm``, ``mlm``, ``seq2seq``.
        check: Called with the function's keyword arguments when a command line is read, and with
            ``tokenizer`` besides as soon as there is one. It raises a `UserError` if they will not
            do.
        needs_masks: Whether it needs a tokenizer with what masks are made of for such a model: a
            mask token for a masked language model, sentinels for a sequence-to-sequence model.

    Example:
        >>> @for_tasks("mlm")
        ... def mask_verbs(inputs, tokenizer): ...
        >>> mask_verbs.tasks
        ('mlm',)
    """

    def mark(function: F) -> F:
        vars(function).update(tasks=tasks, check=check, needs_masks=needs_masks)
        return function

    return mark


def check_mask_prop(mask_prop: Any) -> None:
    """See that a share of tokens is one.

    Raises:
        UserError: If it is not a number from 0 to 1.
    """
    if not _is_number(mask_prop) or not 0 <= mask_prop <= 1:
        raise UserError(f"mask_prop must be a number from 0 to 1 but got {mask_prop!r}.")


def check_span_length(mean_noise_span_length: Any) -> None:
    """See that a length of spans is one.

    Raises:
        UserError: If it is not a number of at least 1.
    """
    if not _is_number(mean_noise_span_length) or not 1 <= mean_noise_span_length < math.inf:
        raise UserError(
            "mean_noise_span_length must be a number of at least 1 but got "
            f"{mean_noise_span_length!r}."
        )


def check_replacement_props(replacement_props: Any) -> None:
    """See that proportions of replacements are all there and add up to 1, give or take 1e-6.

    Raises:
        UserError: If not.
    """
    needed = ", ".join(REPLACEMENT_PROPS)
    if not isinstance(replacement_props, Mapping):
        raise UserError(
            f"replacement_props must have a number for each of {needed} but got "
            f"{replacement_props!r}."
        )
    if set(replacement_props) != set(REPLACEMENT_PROPS):
        raise UserError(
            f"replacement_props must have exactly the keys {needed} but has "
            f"{', '.join(map(str, replacement_props)) or 'none'}."
        )
    for key, value in replacement_props.items():
        if not _is_number(value) or value < 0:
            raise UserError(
                f"replacement_props.{key} must be a number from 0 to 1 but got {value!r}."
            )
    total = sum(replacement_props.values())
    if not abs(total - 1) <= TOLERANCE:
        raise UserError(f"replacement_props must add up to 1 but got {total:g}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
