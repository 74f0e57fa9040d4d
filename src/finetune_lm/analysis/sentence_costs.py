"""What each sentence of a data set costs, and each region of it, from rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.recording.columns import LABEL_SEQUENCE, SEQUENCE_TYPE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Sums:
    """Sums over the tokens of each sentence, of which there are n.

    Attributes:
        bits: What they cost together: (n,).
        n_scored: How many tokens have a cost: (n,).
        n_rows: How many tokens there are: (n,).
    """

    bits: Floats = field(default_factory=lambda: np.zeros(0))
    n_scored: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    n_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, sentence: Ints, bits: Floats) -> None:
        """Add tokens.

        Args:
            sentence: Of which sentence each is: (m,).
            bits: What each costs, NaN where nothing predicts it: (m,).
        """
        self.make_room(int(sentence.max(initial=-1)) + 1)
        is_scored = ~np.isnan(bits)
        # One after another, so that a sum does not depend on how rows come in batches.
        np.add.at(self.bits, sentence[is_scored], bits[is_scored])
        np.add.at(self.n_scored, sentence[is_scored], 1)
        np.add.at(self.n_rows, sentence, 1)

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """What `state_dict` was asked for."""
        return cls(
            np.array(state["bits"], np.float64),
            np.array(state["n_scored"], np.int64),
            np.array(state["n_rows"], np.int64),
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {name: getattr(self, name).tolist() for name in ("bits", "n_scored", "n_rows")}

    def make_room(self, n: int) -> None:
        """Have so many sentences, or more."""
        self.bits, self.n_scored, self.n_rows = (
            _grown(values, n) for values in (self.bits, self.n_scored, self.n_rows)
        )

    def total(self, sentence: Ints) -> Floats:
        """What sentences cost, NaN where no token of it is scored: (m,)."""
        return np.where(self.n_scored[sentence] > 0, self.bits[sentence], np.nan)

    def mean(self, sentence: Ints) -> Floats:
        """The same by token: (m,)."""
        n = self.n_scored[sentence]
        return self.total(sentence) / np.where(n > 0, n, 1)


class SentenceCosts:
    """Sums of surprisals in bits, for each sentence and each region, of one pass over a data set.

    Memory is that of a few numbers a sentence and region, whatever number of rows there is.
    Generated sequences, start tokens and the like are left out.
    """

    def __init__(self) -> None:
        self.whole = Sums()
        self.regions: dict[str, Sums] = {}
        self.has_unknown = np.zeros(0, bool)
        """Whether a sentence has an unknown token."""
        self.tells_unknown = True
        """Whether the rows say which tokens are unknown."""

    def add(self, rows: pa.Table, sentence: Ints) -> None:
        """Add rows of tokens.

        Args:
            rows: The rows.
            sentence: Of which sentence each is: (m,).
        """
        kept = _counts(rows)
        sentence, rows = sentence[kept], rows.filter(pa.array(kept))
        # A cost was computed in float32, and a table has the shortest number that reads as it.
        bits = _numbers(rows["surprisal"]).astype(np.float32).astype(np.float64)
        self.whole.add(sentence, bits)
        if "region" in rows.column_names:
            self._add_regions(rows["region"], sentence, bits)
        self.has_unknown = _grown(self.has_unknown, int(sentence.max(initial=-1)) + 1)
        if "is_unknown" in rows.column_names:
            self.has_unknown[sentence[_truths(rows["is_unknown"])]] = True
        else:
            self.tells_unknown = False

    def make_room(self, n: int) -> None:
        """Have so many sentences, also where the last ones have no token."""
        for sums in (self.whole, *self.regions.values()):
            sums.make_room(n)
        self.has_unknown = _grown(self.has_unknown, n)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self.whole.n_rows.any()

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        sums = {name: each.state_dict() for name, each in self.regions.items()}
        return {
            "whole": self.whole.state_dict(),
            "regions": sums,
            "has_unknown": self.has_unknown.tolist(),
            "tells_unknown": self.tells_unknown,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.whole = Sums.of_state(state["whole"])
        self.regions = {name: Sums.of_state(each) for name, each in state["regions"].items()}
        self.has_unknown = np.array(state["has_unknown"], bool)
        self.tells_unknown = state["tells_unknown"]

    def _add_regions(self, region: pa.ChunkedArray, sentence: Ints, bits: Floats) -> None:
        names = region.cast(pa.string()).to_numpy(zero_copy_only=False)
        for name in dict.fromkeys(names):
            if name is not None:
                here = names == name
                self.regions.setdefault(name, Sums()).add(sentence[here], bits[here])


def _grown(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """An array of at least n values, those that were not there 0."""
    if n <= len(values):
        return values
    more = max(n, 2 * len(values)) - len(values)
    return np.concatenate([values, np.zeros(more, values.dtype)])


def _counts(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows are tokens of the text."""
    kept = np.ones(len(rows), bool)
    if "is_target" in rows.column_names:
        kept &= _truths(rows["is_target"])
    if SEQUENCE_TYPE in rows.column_names:
        kept &= _truths(pc.equal(rows[SEQUENCE_TYPE], LABEL_SEQUENCE))
    return kept


def _truths(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Booleans, of which those that are missing are false."""
    found: npt.NDArray[np.bool_] = (
        values.cast(pa.bool_()).fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
    )
    return found


def _numbers(values: pa.ChunkedArray) -> Floats:
    """Floating-point numbers, NaN where missing."""
    found: Floats = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found
