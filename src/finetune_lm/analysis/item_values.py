"""What the sentences of a pass cost, by condition: bits a word.

The unit is the word, as everywhere: tokens are added up, so that models with other tokenizers can
be set side by side, and a region of one word costs what the word costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.token_passes import Floats, Ints, TokenPass, codes_and_values
from finetune_lm.errors import UserError

MISSING = "NA"
MOST_CONDITIONS = 2_000
"""So many combinations are kept apart; more are no conditions but sentences."""


class Conditions:
    """Numbers for the combinations of values that some columns have.

    Args:
        names: The columns.

    Attributes:
        values: The values of each combination, in the order in which they were met.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.values: list[tuple[str, ...]] = []
        self._numbers: dict[tuple[str, ...], int] = {}

    def of(self, rows: pa.Table) -> Ints:
        """The number of each row's combination, (n,). A column that is not there is missing."""
        combined: Ints = np.zeros(len(rows), np.int64)
        per_column: list[list[str]] = []
        for name in self.names:
            if name in rows.column_names:
                codes, found = codes_and_values(rows[name])
            else:
                codes, found = np.zeros(len(rows), np.int64), [None]
            per_column.append([_as_text(value) for value in found])
            combined = combined * max(len(found), 1) + codes
        different, place = np.unique(combined, return_inverse=True)
        numbers = [self._number(int(code), per_column) for code in different]
        return np.array(numbers, np.int64)[place]

    def _number(self, code: int, per_column: Sequence[Sequence[str]]) -> int:
        values: list[str] = []
        for found in reversed(per_column):
            code, place = divmod(code, max(len(found), 1))
            values.insert(0, found[place])
        key = tuple(values)
        if key not in self._numbers:
            if len(self.values) == MOST_CONDITIONS:
                raise UserError(
                    f"--by must name columns with at most {MOST_CONDITIONS} different values, but "
                    f"{' and '.join(self.names)} have more."
                )
            self._numbers[key] = len(self.values)
            self.values.append(key)
        return self._numbers[key]


def _as_text(value: object) -> str:
    if value is None:
        return MISSING
    return str(value).upper() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class ItemValues:
    """What each sentence costs in each condition that its tokens are of.

    Attributes:
        example: The sentence: (m,), ascending.
        condition: The number of the condition: (m,).
        bits: What its tokens of the condition cost, in bits a word: (m,).
    """

    example: Ints
    condition: Ints
    bits: Floats

    @classmethod
    def of_pass(cls, tokens: TokenPass, conditions: Conditions) -> ItemValues:
        """Add up the tokens of a pass that have a cost.

        Args:
            tokens: The tokens.
            conditions: By which columns.

        Raises:
            UserError: If these have too many values.
        """
        scored = tokens.is_scored
        rows = tokens.rows.filter(pa.array(scored))
        example, word, bits = tokens.example[scored], tokens.word[scored], tokens.bits[scored]
        condition = conditions.of(rows)
        keys, place = np.unique(example * MOST_CONDITIONS + condition, return_inverse=True)
        n_words = _n_different(place, word, len(keys))
        sums = np.bincount(place, bits, len(keys))
        keys, bits = keys[n_words > 0], (sums / np.maximum(n_words, 1))[n_words > 0]
        return cls(keys // MOST_CONDITIONS, keys % MOST_CONDITIONS, bits)

    def minus(self, other: ItemValues) -> ItemValues:
        """The change from another pass, of what is in both."""
        mine, others = self.keys(), other.keys()
        _, here, there = np.intersect1d(mine, others, assume_unique=True, return_indices=True)
        return ItemValues(
            self.example[here], self.condition[here], self.bits[here] - other.bits[there]
        )

    def keys(self) -> Ints:
        """A number for each, ascending: (m,)."""
        return self.example * MOST_CONDITIONS + self.condition


def _n_different(cell: Ints, word: Ints, n: int) -> Ints:
    """How many different words each cell has."""
    in_word = word >= 0
    n_numbers = int(word.max(initial=0)) + 1
    pairs = np.unique(cell[in_word] * n_numbers + word[in_word])
    found: Ints = np.bincount(pairs // n_numbers, minlength=n)
    return found


@dataclass(frozen=True)
class Spread:
    """The mean of some values, and how far they lie apart.

    Attributes:
        n: How many there are.
        mean: Their mean.
        sd: Their standard deviation, NaN of a single one.
    """

    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """That of values, of which there is one at least."""
        sd = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        return cls(len(values), float(values.mean()), sd)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, by Student's t; NaN for a single value."""
        from scipy.special import stdtrit

        if self.n < 2:
            return float("nan"), float("nan")
        half = float(stdtrit(self.n - 1, 0.975)) * self.sd / self.n**0.5
        return self.mean - half, self.mean + half


def by_condition(values: ItemValues) -> dict[int, Spread]:
    """The spread of the values of each condition."""
    order = np.argsort(values.condition, kind="stable")
    numbers, begins = np.unique(values.condition[order], return_index=True)
    parts = np.split(values.bits[order], begins[1:]) if len(numbers) else []
    return {int(n): Spread.of(part) for n, part in zip(numbers, parts, strict=True)}
