"""Examples that go through a model together: what its last layer is fed, and what labels cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.scoring.fast.comparing import are_same
from finetune_lm.scoring.fast.cross_entropy import TargetScores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# What the last layer is fed may differ by this much less than logits may.
_STRICTER = 10.0


@dataclass(frozen=True)
class ScoredGroup:
    """What the labels of some examples cost that went in together.

    Attributes:
        examples: They, in the order of the data set: (n,).
        n_labels: How many labels of each example count: (n,).
        n_behind: How many positions behind its labels were measured: (n,).
        scores: Those of all labels that count, and then of what is behind them.
    """

    examples: IntArray
    n_labels: IntArray
    n_behind: IntArray
    scores: TargetScores

    def has(self, example: int) -> bool:
        """Whether an example is among them, of which none is left out between two of them."""
        return bool(self.examples[0] <= example <= self.examples[-1])

    @property
    def begin(self) -> int:
        """The first of them."""
        return int(self.examples[0])

    @cached_property
    def _ends(self) -> tuple[IntArray, IntArray]:
        """Where the scores of each example end, and those of what is behind its labels."""
        of_labels, behind = (
            np.concatenate([[0], np.cumsum(each)]) for each in (self.n_labels, self.n_behind)
        )
        return of_labels, of_labels[-1] + behind

    @cached_property
    def _measured(self) -> Tensor:
        """All that was measured: (number of columns, number of all)."""
        import torch

        return torch.stack(list(self.scores.measured.values()))

    def of_examples(self, first: int, n: int) -> TargetScores:
        """The scores of n of the examples, from this one on, as those of a batch."""
        import torch

        begin = first - self.begin
        part, more = (slice(ends[begin], ends[begin + n]) for ends in self._ends)
        scores = self.scores
        nll = scores.nll[part]
        measured = {}
        if scores.measured:
            # Of many columns each would be put together by itself.
            values = torch.cat([self._measured[:, part], self._measured[:, more]], dim=1)
            measured = dict(zip(scores.measured, values.unbind(), strict=True))
        return TargetScores(nll.mean(), nll, scores.best_id[part], scores.best_nll[part], measured)

    @classmethod
    def joined(cls, parts: Sequence[ScoredGroup]) -> ScoredGroup:
        """One group of several, between whose examples there are no others."""
        import torch

        if len(parts) == 1:
            return parts[0]
        ks = [int(part.n_labels.sum()) for part in parts]
        examples, n_labels, n_behind = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("examples", "n_labels", "n_behind")
        )
        order = examples.argsort()
        of_labels, behind = (
            torch.from_numpy(np.repeat(examples, n).argsort(kind="stable"))
            for n in (n_labels, n_behind)
        )

        def cat(values: Sequence[Tensor]) -> Tensor:
            labels = torch.cat([value[:k] for value, k in zip(values, ks, strict=True)])
            others = torch.cat([value[k:] for value, k in zip(values, ks, strict=True)])
            if len(others):  # what is not measured is of labels only
                others = others[behind.to(others.device)]
            return torch.cat([labels[of_labels.to(labels.device)], others])

        scores = [part.scores for part in parts]
        nll, best_id, best_nll = (
            cat([getattr(each, name) for each in scores]) for name in ("nll", "best_id", "best_nll")
        )
        measured = {
            name: cat([each.measured[name] for each in scores]) for name in scores[0].measured
        }
        return cls(
            examples[order],
            n_labels[order],
            n_behind[order],
            TargetScores(nll.mean(), nll, best_id, best_nll, measured),
        )

    def to(self, device: torch.device) -> ScoredGroup:
        """The same with all tensors there."""
        return replace(self, scores=self.scores.to(device))


@dataclass(frozen=True)
class Fed:
    """What the last layer is fed for k positions.

    Attributes:
        example: The example of each position: (k,).
        is_behind: Whether it is one behind a label, where something is only measured: (k,).
        targets: The token that each predicts: (k,).
        hidden: Rows that the layer is fed: (n, width).
        which: Which of them each position has: (k,).
        prepared: What measures have made of the positions, (k, ...) each.
    """

    example: IntArray
    is_behind: npt.NDArray[np.bool_]
    targets: Tensor
    hidden: Tensor
    which: Tensor
    prepared: dict[int, Tensor]

    @classmethod
    def joined(cls, parts: Sequence[Fed]) -> Fed:
        """Several parts as one."""
        import torch

        if len(parts) == 1:
            return parts[0]
        begins = np.cumsum([0, *(len(part.hidden) for part in parts)]).tolist()
        return cls(
            np.concatenate([part.example for part in parts]),
            np.concatenate([part.is_behind for part in parts]),
            torch.cat([part.targets for part in parts]),
            torch.cat([part.hidden for part in parts]),
            torch.cat([part.which + begin for part, begin in zip(parts, begins, strict=False)]),
            {i: torch.cat([part.prepared[i] for part in parts]) for i in parts[0].prepared},
        )

    def merged(self, beginnings: Tensor) -> Fed:
        """The same with one row for all positions that end the same beginning of a text.

        As it is if they are not the same but for rounding, which they are where padding or a
        layer's choice of routes leaks into them.

        Args:
            beginnings: The number of the beginning that each position ends: (k,).
        """
        import torch

        distinct, which = beginnings.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        k, n = len(which), len(distinct)
        first = torch.full((n,), k).scatter_reduce(0, which, torch.arange(k), "amin")
        which, first = which.to(self.hidden.device), first.to(self.hidden.device)
        hidden = self.hidden[self.which[first]]
        if not are_same(self.hidden[self.which], hidden[which], stricter=_STRICTER):
            return self
        return replace(self, hidden=hidden, which=which)

    def in_order(self) -> Tensor:
        """The positions by example, those behind labels after all others: (k,)."""
        import torch

        return torch.from_numpy(np.lexsort((self.example, self.is_behind)))
