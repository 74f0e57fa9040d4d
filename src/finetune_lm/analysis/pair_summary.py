"""The summary of pairs: a row for each phenomenon, with accuracy and its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.sentence_costs import Floats
from finetune_lm.recording.columns import MODE

SUMMARY_TYPES = {
    "phenomenon": pa.string(),
    "comparison": pa.string(),
    "comparison_name": pa.string(),
    "region": pa.string(),
    "n_pairs": pa.int64(),
    "accuracy": pa.float64(),
    "ties": pa.int64(),
    "ci_low": pa.float64(),
    "ci_high": pa.float64(),
    "mean_difference": pa.float64(),
    "se": pa.float64(),
    "accuracy_per_token": pa.float64(),
    "ties_per_token": pa.int64(),
    "ci_low_per_token": pa.float64(),
    "ci_high_per_token": pa.float64(),
    "mean_difference_per_token": pa.float64(),
    "se_per_token": pa.float64(),
    "n_with_unknown": pa.int64(),
    "leading_space": pa.bool_(),
    "start_token": pa.string(),
}
"""The columns that are worked out, in order."""

_GROUPED_BY = ("phenomenon", "comparison", "comparison_name", "region")
_NUMBERED_BY = (MODE, "dataset_name", "phenomenon", "comparison_name", "region")
_Z = 1.959963984540054
"""The quantile of the standard normal distribution that leaves 2.5 % above it."""


def summary_of(rows: pa.Table, constants: Mapping[str, Any]) -> pa.Table:
    """Sum up the comparisons of one pass over a data set.

    Args:
        rows: A row for each comparison, with the columns of `comparisons.ROW_TYPES`.
        constants: ``leading_space`` and ``start_token``, where they are known.

    Returns:
        A row for each phenomenon and comparison, in the order in which they are met, with the
        columns of `SUMMARY_TYPES`.
    """
    keys = list(zip(*(rows[name].to_pylist() for name in _GROUPED_BY), strict=True))
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    found = []
    for key, group in places.items():
        part = rows.take(group)
        found.append({**dict(zip(_GROUPED_BY, key, strict=True)), **_summed_up(part), **constants})
    return pa.Table.from_pylist(found, pa.schema(list(SUMMARY_TYPES.items())))


def numbers_of(summary: pa.Table) -> dict[str, float]:
    """Accuracies and mean differences that there are, by what they are of.

    Args:
        summary: The summary of a pass over a data set, with the columns of the pass.

    Returns:
        By ``MODE/DATA/PHENOMENON/NAME/REGION/accuracy`` or ``.../mean_difference``, without what is
        missing or says the same again.
    """
    found: dict[str, float] = {}
    for row in summary.to_pylist():
        parts = (row.get(key) for key in _NUMBERED_BY)
        name = "/".join(dict.fromkeys(str(part) for part in parts if part is not None))
        for number in ("accuracy", "mean_difference"):
            if row[number] is not None:
                found[f"{name}/{number}"] = row[number]
    return found


def _summed_up(rows: pa.Table) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for suffix in ("", "_per_token"):
        right, difference = (_there(rows[f"{name}{suffix}"]) for name in ("correct", "difference"))
        accuracy = float(right.mean()) if len(right) else None
        low, high = wilson(accuracy, len(right)) if accuracy is not None else (None, None)
        found |= {
            f"accuracy{suffix}": accuracy,
            f"ties{suffix}": int((right == 0.5).sum()) if len(right) else None,
            f"ci_low{suffix}": low,
            f"ci_high{suffix}": high,
            f"mean_difference{suffix}": float(difference.mean()) if len(difference) else None,
            f"se{suffix}": standard_error(difference),
        }
    # A prediction with = in it has no difference, and a contrast is neither right nor wrong.
    is_scored = np.array(rows["correct"].is_valid()) | np.array(rows["difference"].is_valid())
    found["n_pairs"] = int(is_scored.sum())
    unknown = rows["has_unknown"].filter(pa.array(is_scored))
    known = unknown.null_count == 0
    found["n_with_unknown"] = sum(unknown.to_pylist()) if known else None
    return found


def _there(values: pa.ChunkedArray) -> Floats:
    """The numbers that are not missing."""
    found: Floats = values.drop_null().to_numpy()
    return found


def wilson(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's interval (1927) of a proportion, at 95 %.

    Args:
        accuracy: The proportion.
        n: Of how many.

    Example:
        >>> [round(end, 4) for end in wilson(0.8, 100)]
        [0.7112, 0.8666]
    """
    share = _Z**2 / n
    middle = (accuracy + share / 2) / (1 + share)
    half = _Z * math.sqrt(accuracy * (1 - accuracy) / n + share / (4 * n)) / (1 + share)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def standard_error(values: Floats) -> float | None:
    """The standard error of a mean; None of fewer than two values."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / math.sqrt(len(values)))
