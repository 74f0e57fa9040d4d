"""What the untouched model's last layer is fed for examples, found out for several at a time.

An example's numbers depend, in their last bits, on those that go through the model with it. A run
that is resumed has lost what was kept, and a trial of a study finds what trials before it have
kept; both must come to the same. So which examples go together is a matter of the draws alone:
those that are drawn for the first time for the same batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.ranks import world

if TYPE_CHECKING:
    from torch import Tensor

_NEVER = -1


class KeptStates:
    """Which examples of a data set a stream of draws has come to, and what is kept of them.

    Kept are the examples that are drawn first, as long as they fit the budget. The others go
    through the model each time that they are drawn, all of a batch together.

    Args:
        n_bytes: How much each example takes: (examples,).
        budget: How much all may take.
    """

    def __init__(self, n_bytes: IntArray, budget: float) -> None:
        self._n_bytes = n_bytes
        self._budget = budget
        self._n_taken = 0
        # The batch for which each example was drawn first, and the rank that it was for.
        self._group = np.full(len(n_bytes), _NEVER)
        self._fits = np.zeros(len(n_bytes), dtype=bool)
        self._now = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._kept: dict[int, Tensor] = {}
        self._passing: dict[int, Tensor] = {}

    def drawn(self, call: int, batches: Sequence[Sequence[int]], ranks: Sequence[IntArray]) -> None:
        """Take note of what a call draws.

        Args:
            call: Its number, from 0, since the stream began. Each has as many batches.
            batches: The examples of each of its batches.
            ranks: Which rank deals with each of these.
        """
        first = call * len(batches)
        groups = [(first + i) * world().size + of_batch for i, of_batch in enumerate(ranks)]
        rows = np.concatenate([np.asarray(batch, np.int64) for batch in batches])
        of_rows = np.concatenate(groups)
        self._now, self._passing = (rows, of_rows), {}
        is_new = self._group[rows] == _NEVER
        self._group[rows[is_new]] = of_rows[is_new]
        self._take_in(rows[is_new])

    def _take_in(self, rows: IntArray) -> None:
        """See which of these examples, all later than those before, fit the budget."""
        rows = rows[np.lexsort((rows, self._group[rows]))]
        ends = self._n_taken + np.cumsum(self._n_bytes[rows])
        self._fits[rows] = ends <= self._budget
        self._n_taken = int(ends[-1]) if len(ends) else self._n_taken

    def group_of(self, row: int) -> IntArray:
        """The examples that go through the model with this one, itself among them."""
        if self._fits[row]:
            return np.flatnonzero(self._fits & (self._group == self._group[row]))
        rows, groups = self._now
        mine = groups[rows == row]
        # Who has not drawn it asks for it alone.
        together = rows[(groups == mine[0]) & ~self._fits[rows]] if len(mine) else np.array([row])
        return np.sort(together)

    def get(self, row: int) -> Tensor | None:
        """What is known of an example."""
        return self._kept.get(row, self._passing.get(row))

    def put(self, found: Mapping[int, Tensor]) -> None:
        """Keep what the examples of a group came to: for good, or until there is another group."""
        if self._fits[next(iter(found))]:
            self._kept.update(found)
        else:
            self._passing = dict(found)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs for the same groups afterwards."""
        import torch

        return {"group": torch.from_numpy(self._group.copy())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the groups of a stream of which this one's are the beginning, or go on with."""
        loaded = state["group"].numpy()
        rows = np.flatnonzero((self._group == _NEVER) & (loaded != _NEVER))
        self._group[rows] = loaded[rows]
        self._take_in(rows)
