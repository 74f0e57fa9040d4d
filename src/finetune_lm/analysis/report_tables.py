"""The answer in short: what was learned, what it carried over to, what was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.analysis.item_values import Spread
from finetune_lm.analysis.report_frames import DATASET, RUN, SETTING, Results, X, parts, rows_of
from finetune_lm.analysis.run_trajectories import LEARNED_FROM

if TYPE_CHECKING:
    import pandas as pd

LEARNED, CARRIED_OVER, FORGOTTEN = "learned", "carried over", "forgotten"
ROLES = {
    LEARNED: "Learned: what the model was trained or validated on",
    CARRIED_OVER: "Carried over: other sentences",
    FORGOTTEN: "Forgotten: fillers, which should not change",
}
"""What a data set tells about, in order."""


def role_of(dataset_type: str, dataset_name: str, fillers: Sequence[str]) -> str:
    """What a data set tells about.

    Args:
        dataset_type: Its type.
        dataset_name: Its name.
        fillers: The names of those that should not change.
    """
    if dataset_type in ("train", "validation") or LEARNED_FROM in dataset_name:
        return LEARNED
    return FORGOTTEN if dataset_name in fillers else CARRIED_OVER


def change_table(results: Results, ends: pd.DataFrame, fillers: Sequence[str]) -> pd.DataFrame:
    """What sentences cost before and after: a row for each setting, data set and condition.

    Args:
        results: What the runs have come to.
        ends: What `ends_frame` made of them.
        fillers: The names of data sets that should not change.

    Returns:
        ``role``, the setting, the data set, the conditions; ``n_items``, ``n_runs``; ``before``,
        ``after`` and ``change`` in bits a word, with the 95 % interval of the change: over
        sentences, or over runs where a setting has several. ``before_is`` says whether that was
        before the training.
    """
    import pandas as pd

    rows = []
    keys = [SETTING, *DATASET, *results.conditions.names, "before_is"]
    for key, part in parts(ends, *keys) if len(ends) else ():
        named: dict[str, Any] = dict(zip(keys, key, strict=True))
        by_run = [of_run["change"].to_numpy(float) for _, of_run in parts(part, RUN)]
        spread = Spread.of(by_run[0])
        if len(by_run) > 1:
            spread = Spread.of(_array([values.mean() for values in by_run]))
        low, high = spread.interval()
        means = part.groupby(RUN, sort=False)[["before", "after"]].mean().mean()
        rows.append(
            {
                "role": role_of(named[DATASET[0]], named[DATASET[1]], fillers),
                **named,
                "n_items": len(by_run[0]),
                "n_runs": len(by_run),
                "before": means["before"],
                "after": means["after"],
                "change": spread.mean,
                "ci_low": low,
                "ci_high": high,
            }
        )
    names = results.conditions.names
    # Values of each column in the order in which they were met.
    met = [list(dict.fromkeys(column)) for column in zip(*results.conditions.values, strict=True)]
    datasets = list(dict.fromkeys(tuple(row[name] for name in DATASET) for row in rows))
    rows.sort(
        key=lambda row: (
            list(ROLES).index(row["role"]),
            datasets.index(tuple(row[name] for name in DATASET)),
            [values.index(row[name]) for name, values in zip(names, met, strict=True)],
            [group.name for group in results.groups].index(row[SETTING]),
        )
    )
    return pd.DataFrame(rows)


def pairs_table(results: Results, pairs: pd.DataFrame) -> pd.DataFrame:
    """What pairs came to before and after: a row for each setting, data set and phenomenon.

    Args:
        results: What the runs have come to.
        pairs: What `pairs_frame` made of them.

    Returns:
        The setting, the data set, ``phenomenon``, ``n_pairs``, ``n_runs``; accuracy, and the mean
        difference in bits, before (NaN where it was not measured) and after, each the mean over
        runs. The interval is Wilson's, of a setting with a single run.
    """
    import pandas as pd

    rows = []
    keys = [SETTING, *DATASET, "_label"]
    for key, part in parts(pairs, *keys) if len(pairs) else ():
        ends = [_ends(results, of_run) for _, of_run in parts(part, RUN)]
        before = [each for each, _ in ends if each is not None]
        after = [each for _, each in ends]
        row: dict[str, Any] = dict(zip([*keys[:-1], "phenomenon"], key, strict=True))
        row |= {"n_pairs": after[0]["n_pairs"], "n_runs": len(after)}
        for name in ("accuracy", "mean_difference"):
            row[f"{name}_before"] = _mean([each[name] for each in before])
            row[f"{name}_after"] = _mean([each[name] for each in after])
        alone = after[0] if len(after) == 1 else {}
        row |= {name: alone.get(name) for name in ("ci_low", "ci_high")}
        rows.append(row)
    datasets = list(dict.fromkeys(tuple(row[name] for name in DATASET) for row in rows))
    rows.sort(key=lambda row: datasets.index(tuple(row[name] for name in DATASET)))
    return pd.DataFrame(rows)


def _ends(results: Results, rows: pd.DataFrame) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The row before the training, if there is one, and that of the best epoch or before it."""
    ordered = rows.sort_values(X, kind="stable")
    name = ordered[RUN].iloc[0]
    files = next(run.files for run in results.runs if run.files.name == name)
    before = ordered[ordered[X] == 0]
    judged = ordered
    if files.best_epoch is not None:
        judged = ordered[ordered[X] <= files.best_epoch + 1]
    after = rows_of(judged if len(judged) else ordered)[-1]
    is_before = len(before) > 0 and files.was_trained
    return (rows_of(before)[0] if is_before else None), after


def _mean(values: Sequence[Any]) -> float:
    found = _array([value for value in values if value is not None])
    return float(found.mean()) if len(found) else float("nan")


def _array(values: Sequence[Any]) -> Any:
    import numpy as np

    return np.array(values, float)
