"""The numbers of a report as tidy data frames: the data of its figures, as they go into CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_lm.analysis.item_values import MISSING, Conditions, ItemValues, Spread
from finetune_lm.analysis.run_groups import RunGroup
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.analysis.token_passes import PassKey

if TYPE_CHECKING:
    import pandas as pd

X = "epochs_of_training"
"""The column that is the axis of figures: how many epochs were learned."""

RUN, SETTING = "run", "setting"
UNTOUCHED = "before training"
VALUE, LOW, HIGH = "mean", "ci_low", "ci_high"
DATASET = ("dataset_type", "dataset_name")


@dataclass
class Results:
    """What several runs have come to.

    Attributes:
        runs: The runs.
        groups: Those of them that differ in their seeds alone.
        conditions: By which columns sentences are told apart, and which values there are.
    """

    runs: Sequence[RunTrajectories]
    groups: Sequence[RunGroup]
    conditions: Conditions

    def setting_of(self, place: int) -> str:
        """The name of the group of a run."""
        return next(group.name for group in self.groups if place in group.runs)

    def has_seeds(self, setting: str) -> bool:
        """Whether a group has several runs."""
        return any(len(group.runs) > 1 for group in self.groups if group.name == setting)


def losses_frame(results: Results) -> pd.DataFrame:
    """The losses: a row for each run, pass and loss."""
    import pandas as pd

    rows = [
        {
            **_run(results, place),
            **_pass(run, key),
            "loss": mean.name,
            VALUE: mean.mean,
            "lowest_batch": mean.lowest,
            "highest_batch": mean.highest,
            "n_batches": mean.n_batches,
        }
        for place, run in enumerate(results.runs)
        for key, mean in run.losses
    ]
    return pd.DataFrame(rows)


def surprisal_frame(results: Results) -> pd.DataFrame:
    """Surprisal: a row for each run, pass and condition, in bits a word."""
    import pandas as pd

    rows = []
    for place, run in enumerate(results.runs):
        for each in run.passes:
            at = {**_run(results, place), **_pass(run, each.key)}
            for number, spread in each.surprisal.items():
                change = each.change.get(number)
                rows.append(
                    {
                        **at,
                        **_condition(results.conditions, number),
                        "n_items": spread.n,
                        **_with_interval(spread),
                        **({} if change is None else _with_interval(change, "change_")),
                    }
                )
    return pd.DataFrame(rows)


def kl_frame(results: Results) -> pd.DataFrame:
    """The divergence from the untouched model where it was measured: a row for each run, pass."""
    import pandas as pd

    rows = [
        {
            **_run(results, place),
            **_pass(run, each.key),
            "n_items": each.kl.n,
            **_with_interval(each.kl),
        }
        for place, run in enumerate(results.runs)
        for each in run.passes
        if each.kl is not None
    ]
    return pd.DataFrame(rows)


def ends_frame(results: Results) -> pd.DataFrame:
    """Before and after: a row for each run, sentence and condition, in bits a word."""
    import numpy as np
    import pandas as pd

    frames = []
    untrained = _untrained(results)
    for place, run in enumerate(results.runs):
        for dataset, ends in run.ends.items():
            untouched = ends.before or untrained.get((run.files.model_name, dataset))
            before = untouched or ends.first
            if before[0] == ends.after[0] and before[1] is ends.after[1]:
                continue
            values = ends.after[1].minus(before[1])
            after = _those_of(ends.after[1], values)
            names = np.array(results.conditions.values, dtype=object).reshape(
                len(results.conditions.values), len(results.conditions.names)
            )[values.condition]
            frames.append(
                pd.DataFrame(
                    {
                        **_run(results, place),
                        **dict(zip(DATASET, dataset, strict=True)),
                        "before_is": UNTOUCHED if untouched else "first pass",
                        "epoch": ends.after[0].epoch,
                        "example_num": values.example,
                        "item": [ends.items[int(number)] for number in values.example],
                        **{n: names[:, i] for i, n in enumerate(results.conditions.names)},
                        "before": after - values.bits,
                        "after": after,
                        "change": values.bits,
                        "original_text": [ends.texts[int(number)] for number in values.example],
                    }
                )
            )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _untrained(results: Results) -> dict[tuple[str, tuple[str, str]], tuple[PassKey, ItemValues]]:
    """What untouched models cost in tests, which is what a trained one costs before training."""
    found: dict[Any, tuple[PassKey, ItemValues]] = {}
    for run in results.runs:
        if not run.files.was_trained:
            for dataset, ends in run.ends.items():
                if ends.before is not None:
                    found[run.files.model_name, dataset] = ends.before
    return found


def _those_of(values: ItemValues, others: ItemValues) -> Any:
    """The values of what others are of, in their order."""
    import numpy as np

    places = np.searchsorted(values.keys(), others.keys())
    return values.bits[places]


def _run(results: Results, place: int) -> dict[str, Any]:
    run = results.runs[place]
    return {RUN: run.files.name, SETTING: results.setting_of(place), "seed": run.files.seed}


def _pass(run: RunTrajectories, key: PassKey) -> dict[str, Any]:
    return {
        **dict(zip(DATASET, key.dataset, strict=True)),
        "epoch": key.epoch,
        "step": key.step,
        X: run.epochs_of_training(key),
    }


def _condition(conditions: Conditions, number: int) -> dict[str, str]:
    return dict(zip(conditions.names, conditions.values[number], strict=True))


def _with_interval(spread: Spread, prefix: str = "") -> dict[str, float]:
    low, high = spread.interval()
    mean = "change" if prefix else VALUE
    return {
        mean: spread.mean,
        f"{prefix}sd": spread.sd,
        f"{prefix}{LOW}": low,
        f"{prefix}{HIGH}": high,
    }


def over_runs(frame: pd.DataFrame, keys: Sequence[str], columns: Mapping[str, str]) -> pd.DataFrame:
    """Means over runs that differ in their seeds alone, with 95 % intervals.

    Args:
        frame: Rows of runs.
        keys: What else tells lines apart, beside the setting.
        columns: The column of the mean (``mean``) and, for a setting of a single run, those of its
            own interval (``ci_low``, ``ci_high``).

    Returns:
        The setting, the keys, `X`, ``mean``, ``ci_low``, ``ci_high``, ``n_runs``. Where some runs
        of a setting were over earlier, what the others came to then is left out: a mean over
        fewer and fewer runs would change with which are left.
    """
    from scipy.special import stdtrit

    groups = [SETTING, *keys, X]
    by = frame.groupby(groups, sort=False, dropna=False)
    found = by[columns[VALUE]].agg(["mean", "count", "std"]).reset_index()
    single = by[[columns[LOW], columns[HIGH]]].first().reset_index()
    n = found["count"]
    half = stdtrit((n - 1).clip(lower=1), 0.975) * found["std"] / n**0.5
    found[LOW] = (found["mean"] - half).where(n > 1, single[columns[LOW]])
    found[HIGH] = (found["mean"] + half).where(n > 1, single[columns[HIGH]])
    found["n_runs"] = n
    lines = found.groupby([SETTING, *keys], sort=False, dropna=False)
    found["_line"] = lines.ngroup()
    kept: pd.DataFrame = found[n == lines["n_runs"].transform("max")]
    kept = kept.sort_values(["_line", X], kind="stable")
    return kept[[*groups, "mean", LOW, HIGH, "n_runs"]].reset_index(drop=True)


def parts(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows of each combination of values, as they are met; one value alone is no tuple."""
    by = columns[0] if len(columns) == 1 else list(columns)
    yield from frame.groupby(by, sort=False, dropna=False)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    found: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return found


def is_undivided(values: Sequence[str]) -> bool:
    """Whether a data set has none of the columns that tell conditions apart."""
    return all(value == MISSING for value in values)
