"""A class or function that is named without its module -> its dotted name."""

from __future__ import annotations

import importlib
import sys

from finetune_lm.arguments.references import USER_PACKAGES

_PLACES = (
    *(f"finetune_lm.{package}" for package in USER_PACKAGES),
    *("torch.optim", "torch.optim.lr_scheduler", "torch"),
    *("optuna.samplers", "optuna.pruners", "optuna.storages", "optuna.storages.journal"),
)
"""Where what can be named is looked for, in this order."""


def dotted_name(name: str) -> str | None:
    """Return the dotted name of a class or function that users may mean by its last part alone.

    Upper and lower case do not matter. Optuna is searched only where it is loaded: a run without a
    study has no use for it.

    Example:
        >>> dotted_name("klbaselineloss")
        'loss_classes.KLBaselineLoss'
    """
    last = name.rpartition(".")[2].lower()
    if not last.isidentifier():
        return None
    for place in _PLACES:
        if place.startswith("optuna") and place not in sys.modules:
            continue
        for key, value in list(vars(importlib.import_module(place)).items()):
            if key.lower() == last and not key.startswith("_") and callable(value):
                return f"{place.removeprefix('finetune_lm.')}.{key}"
    return None


def meant_by(name: object) -> str:
    """Return `" Did you mean ...?"` with the dotted name, or an empty text.

    Args:
        name: What was given, of any type.
    """
    found = dotted_name(name) if isinstance(name, str) else None
    return f" Did you mean {found}?" if found is not None and found != name else ""
