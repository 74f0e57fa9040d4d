"""Pairs, predictions and contrasts of a data set: what each item's sentences cost beside another.

A pair is right where the sentence that is expected to be likelier costs less, in bits, than the
likeliest of the others; by sum, and by mean per token. Costs that differ by less than a millionth
of a bit are a tie, which counts one half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.sentence_costs import Floats, Ints, SentenceCosts, Sums
from finetune_lm.data.items import ITEM, PAIR, Item, items_of
from finetune_lm.formulas import ALL_REGIONS, TIE, Cost, Formula

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

PAIRS, PREDICTIONS, CONTRASTS = "pair", "prediction", "contrast"
"""What a row is of."""

ROW_TYPES = {
    "comparison": pa.string(),
    "comparison_name": pa.string(),
    "region": pa.string(),
    "better": pa.string(),
    "worse": pa.string(),
    "surprisal_better": pa.float64(),
    "surprisal_worse": pa.float64(),
    "n_tokens_better": pa.int64(),
    "n_tokens_worse": pa.int64(),
    "difference": pa.float64(),
    "difference_per_token": pa.float64(),
    "correct": pa.float64(),
    "correct_per_token": pa.float64(),
    "has_unknown": pa.bool_(),
}
"""The columns that are worked out, in order."""


@dataclass(frozen=True)
class Wanted:
    """What is to be compared, whatever the data set.

    Attributes:
        contrasts: Contrasts by name.
        region: The region over which pairs are scored; None for the one that the data have, if all
            of them have the same one, else for the whole text.
    """

    contrasts: Mapping[str, Formula] = field(default_factory=dict)
    region: str | None = None

    @classmethod
    def of(cls, args: DataTrainingArguments) -> Self:
        """What the arguments of a run say."""
        region = args.pair_region
        return cls(args.parsed_contrasts(), None if region is None else str(region))


class Comparisons:
    """The comparisons of one data set.

    Args:
        metadata: Of each sentence.
        wanted: What is to be compared.
        predictions: The formulas of a test suite.
    """

    def __init__(
        self,
        metadata: Sequence[Mapping[str, Any]],
        wanted: Wanted,
        predictions: Sequence[Formula] = (),
    ) -> None:
        self._n = len(metadata)
        self._wanted = wanted
        self._pairs = [i for i in items_of(metadata) if i.expected is not None and i.others]
        items = items_of(metadata, (ITEM, PAIR))
        self._formulas = [
            (PREDICTIONS, formula.text, formula, _Conditions.of(items, formula))
            for formula in predictions
        ]
        self._formulas += [
            (CONTRASTS, name, formula, _Conditions.of(items, formula))
            for name, formula in wanted.contrasts.items()
        ]

    def of_costs(self, costs: SentenceCosts) -> list[tuple[list[Item], dict[str, pa.Array]]]:
        """Work all of them out.

        Args:
            costs: What the sentences cost.

        Returns:
            For each kind of comparison its items and, in their order, the columns of `ROW_TYPES`.
        """
        costs.make_room(self._n)
        region = self._region(costs)
        over = costs.whole if region is None else costs.regions[region]
        found = []
        if self._pairs:
            found.append((self._pairs, self._of_pairs(costs, over, region)))
        for kind, name, formula, conditions in self._formulas:
            regions = {cost.region for cost in formula.costs} - {None, ALL_REGIONS}
            # A contrast is for the data that have its conditions and regions.
            if conditions.items and regions <= costs.regions.keys():
                columns = _of_formula(kind, formula, conditions, costs, over)
                columns |= {"comparison": kind, "comparison_name": name}
                columns["region"] = region if _names_no_region(formula) else None
                found.append((conditions.items, _as_columns(columns, len(conditions.items))))
        return found

    def _region(self, costs: SentenceCosts) -> str | None:
        """Over which region pairs are scored; None for the whole text."""
        if self._wanted.region is not None:
            return self._wanted.region if self._wanted.region in costs.regions else None
        return next(iter(costs.regions)) if len(costs.regions) == 1 else None

    def _of_pairs(
        self, costs: SentenceCosts, over: Sums, region: str | None
    ) -> dict[str, pa.Array]:
        others = [member for item in self._pairs for member in item.others]
        pair = np.repeat(np.arange(len(self._pairs)), [len(item.others) for item in self._pairs])
        begins = np.searchsorted(pair, np.arange(len(self._pairs)))
        better = np.array([item.expected.example for item in self._pairs if item.expected])
        worse = np.array([member.example for member in others])
        total, mean = over.total(worse), over.mean(worse)
        # The likeliest of the others, where there are several.
        rival = np.lexsort((total, pair))[begins]
        difference = np.minimum.reduceat(total, begins) - over.total(better)
        per_token = np.minimum.reduceat(mean, begins) - over.mean(better)
        unknown = costs.has_unknown[better] | np.logical_or.reduceat(
            costs.has_unknown[worse], begins
        )
        columns = {
            "comparison": PAIRS,
            "comparison_name": None,
            "region": region,
            "better": [item.expected.condition for item in self._pairs if item.expected],
            "worse": [others[i].condition for i in rival],
            "surprisal_better": over.total(better),
            "surprisal_worse": total[rival],
            "n_tokens_better": over.n_scored[better],
            "n_tokens_worse": over.n_scored[worse[rival]],
            "difference": difference,
            "difference_per_token": per_token,
            "correct": correct(difference),
            "correct_per_token": correct(per_token),
            "has_unknown": unknown if costs.tells_unknown else None,
        }
        return _as_columns(columns, len(self._pairs))


def correct(difference: Floats) -> Floats:
    """Whether differences are above 0: 1, 0, one half for a tie, NaN where missing: (n,)."""
    found = np.where(np.abs(difference) <= TIE, 0.5, difference > 0)
    return np.where(np.isfinite(difference), found, np.nan)


@dataclass(frozen=True)
class _Conditions:
    """The items that have all conditions of a formula, and where the sentences of these are.

    Attributes:
        items: The items, n of them.
        sentences: For each condition: which sentences they are, and of which item each is.
    """

    items: list[Item]
    sentences: dict[str, tuple[Ints, Ints]]

    @classmethod
    def of(cls, items: Sequence[Item], formula: Formula) -> _Conditions:
        wanted = dict.fromkeys(cost.condition for cost in formula.costs)
        complete = [i for i in items if wanted.keys() <= {m.condition for m in i.members}]
        sentences = {}
        for condition in wanted:
            found = [
                (member.example, place)
                for place, item in enumerate(complete)
                for member in item.members
                if member.condition == condition
            ]
            example, place = np.array(found, dtype=np.int64).reshape(-1, 2).T
            sentences[condition] = example, place
        return cls(complete, sentences)

    def mean(self, condition: str, values: Callable[[Ints], Floats]) -> Floats:
        """The mean of what each item's sentences of a condition have, mostly one: (n,)."""
        example, place = self.sentences[condition]
        total = np.bincount(place, values(example), minlength=len(self.items))
        return np.asarray(total / np.bincount(place, minlength=len(self.items)))


def _of_formula(
    kind: str, formula: Formula, conditions: _Conditions, costs: SentenceCosts, over: Sums
) -> dict[str, Any]:
    """The columns of a prediction or a contrast."""

    def sums(cost: Cost) -> Sums:
        if cost.region == ALL_REGIONS:
            return costs.whole
        return over if cost.region is None else costs.regions[cost.region]

    def total(cost: Cost) -> Floats:
        here = sums(cost)

        def values(sentence: Ints) -> Floats:
            # A region of which a sentence has nothing costs nothing, as in SyntaxGym.
            is_empty = (here.n_rows[sentence] == 0) & (costs.whole.n_rows[sentence] > 0)
            is_empty &= cost.region is not None
            return np.where(is_empty, 0.0, here.total(sentence))

        return conditions.mean(cost.condition, values)

    def mean(cost: Cost) -> Floats:
        return conditions.mean(cost.condition, sums(cost).mean)

    columns: dict[str, Any] = dict.fromkeys(ROW_TYPES)
    work_out = formula.margin if kind == PREDICTIONS else formula.value
    for column, cost in (("difference", total), ("difference_per_token", mean)):
        columns[column] = work_out(cost)
    if kind == PREDICTIONS:
        columns["correct"] = formula.holds(total)
        columns["correct_per_token"] = formula.holds(mean)
    if costs.tells_unknown:
        unknown = np.zeros(len(conditions.items), bool)
        for example, place in conditions.sentences.values():
            unknown[place[costs.has_unknown[example]]] = True
        columns["has_unknown"] = unknown
    return columns


def _names_no_region(formula: Formula) -> bool:
    return all(cost.region is None for cost in formula.costs)


def _as_columns(columns: Mapping[str, Any], n: int) -> dict[str, pa.Array]:
    """Values as arrays of n, numbers that are not finite missing."""
    arrays = {}
    for name, kind in ROW_TYPES.items():
        values = columns[name]
        if values is None or isinstance(values, str):
            arrays[name] = pa.repeat(pa.scalar(values, kind), n)
        elif kind == pa.float64():
            arrays[name] = pa.array(values, kind, mask=~np.isfinite(values))
        else:
            arrays[name] = pa.array(values, kind)
    return arrays
