"""Dictionaries merged by presence: what is given overrides, everything else stays."""

from __future__ import annotations

from typing import Any

from finetune_lm.arguments.nearest import did_you_mean
from finetune_lm.arguments.values import DELETE_FIELD


def merge(
    base: dict[str, Any], given: dict[str, Any], name: str, problems: list[str]
) -> dict[str, Any]:
    """Return `base` with what is in `given` put over it, at every depth.

    Args:
        base: The defaults, or what earlier layers made of them. Not changed.
        given: What overrides it. `DELETE_FIELD` as a value removes the key.
        name: Dotted name of the dictionary, for messages.
        problems: Messages about keys that were to be deleted and are not there go here.

    Example:
        >>> merge({"lr": 2e-6, "weight_decay": 0}, {"lr": 1e-4}, "train_optimizer_kwargs", [])
        {'lr': 0.0001, 'weight_decay': 0}
    """
    merged = dict(base)
    for key, value in given.items():
        dotted = f"{name}.{key}"
        if value is DELETE_FIELD:
            if key not in merged:
                close = did_you_mean(key, merged, f"{name}.")
                problems.append(f"{dotted} cannot be deleted because it is not there.{close}")
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value, dotted, problems)
        else:
            merged[key] = value
    return merged


def with_deletions(default: dict[str, Any], effective: dict[str, Any]) -> dict[str, Any]:
    """Return what to merge over `default` in order to have exactly `effective`.

    It is `effective` itself, and a `DELETE_FIELD` for each default key that it lacks.
    """
    result: dict[str, Any] = {}
    for key, value in effective.items():
        below = default.get(key)
        both_nested = isinstance(value, dict) and isinstance(below, dict)
        result[key] = with_deletions(below, value) if both_nested else value  # type: ignore[arg-type]
    for key in default:
        result.setdefault(key, DELETE_FIELD)
    return result
