"""Several batches through a model together, while it does not change.

What their texts have in common goes in once, and otherwise what is about as long goes in together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.ranks import world
from finetune_lm.scoring.fast.comparing import traits_in
from finetune_lm.scoring.fast.cross_entropy import Targets, TargetScores, row_blocks, score_rows
from finetune_lm.scoring.fast.output_layer import OutputLayer
from finetune_lm.scoring.fast.ragged import nodes_of_beginnings
from finetune_lm.scoring.fast.scored_groups import Fed, ScoredGroup
from finetune_lm.scoring.halving import free_memory
from finetune_lm.scoring.measuring import Measurement, Measuring
from finetune_lm.scoring.scorer import Scorer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How many tokens go through a model together where nothing is learned, padding included.
_TOKENS_TOGETHER = 8192
_BATCHES_TOGETHER = 16
# How many groups each rank has before all are told, so that those of long texts can be evened out.
_GROUPS_OF_RANK = 2


_Ends = tuple[int, int]
"""The first example of a group, and the one behind its last."""


class BatchesTogether:
    """Scores the batches around each one that is asked for.

    Which go in together is a matter of the data set alone, so that a batch comes out the same
    wherever an evaluation begins.

    Args:
        scorer: The model's.
        layer: Its output layer, for which `OutputLayer.resumes_alone`.
        dataset: The data set.
        batch_size: How many of its examples make a batch.
        measures: What is measured besides.
    """

    def __init__(
        self,
        scorer: Scorer,
        layer: OutputLayer,
        dataset: Dataset,
        batch_size: int,
        measures: Sequence[Any] = (),
    ) -> None:
        self._scorer = scorer
        self._layer = layer
        self._dataset = dataset
        self._batch_size = batch_size
        self._measures = measures
        self._groups: list[ScoredGroup] = []
        self._is_settled = False

    def has(self, batch: Batch) -> bool:
        """Whether all ranks have the scores of a batch, and none can find that they are wrong."""
        return self._is_settled and self._group_of(int(batch.example[0])) is not None

    def scores_of(self, batch: Batch, device: torch.device) -> TargetScores | None:
        """The scores of a batch's labels that count, in the order of their predictions.

        None if memory does not do for all that go in together.
        """
        first = int(batch.example[0])
        if (group := self._group_of(first)) is None:
            self._score_around(first, device)
            if (group := self._group_of(first)) is None:
                free_memory()
                return None
        import torch

        begin = first - group.begin
        part, more = (slice(ends[begin], ends[begin + len(batch)]) for ends in group.ends)
        scores = group.scores
        nll = scores.nll[part]
        measured = {}
        if scores.measured:
            # Of many columns each would be put together by itself.
            values = torch.cat([group.measured[:, part], group.measured[:, more]], dim=1)
            measured = dict(zip(scores.measured, values.unbind(), strict=True))
        return TargetScores(nll.mean(), nll, scores.best_id[part], scores.best_nll[part], measured)

    def _group_of(self, first: int) -> ScoredGroup | None:
        return next((each for each in self._groups if each.begin <= first < each.end), None)

    def _score_around(self, first: int, device: torch.device) -> None:
        """Score the batches that go in together, of which one begins with this example.

        Several ranks score the groups that come behind these as well, and all are told.
        """
        self._groups = []
        dealt, shared = self._dealt(first)
        mine: tuple[list[ScoredGroup], list[ScoredGroup]] | None = None
        try:
            mine = (
                [self._scored(ends, device) for ends in dealt[world().rank]],
                [self._scored(ends, device, world().share) for ends in shared],
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        found, settled = zip(*world().gather((mine, self._layer.settled_for)), strict=True)
        if None not in found:
            whole, parts = zip(*found, strict=True)
            made = [*itertools.chain(*whole), *map(ScoredGroup.joined, zip(*parts, strict=True))]
            self._groups = [group.to(device) for group in made]
            self._is_settled = self._traits() <= frozenset.intersection(*settled)

    def _traits(self) -> frozenset[str]:
        """What batches of these groups may have."""
        import torch

        examples = np.concatenate([np.arange(each.begin, each.end) for each in self._groups])
        counts = np.concatenate([np.diff(each.ends[0]) for each in self._groups])
        lengths = self._dataset.input_ids.lengths[examples]
        return traits_in(torch.from_numpy(lengths), torch.from_numpy(counts))

    def _dealt(self, first: int) -> tuple[list[list[_Ends]], list[_Ends]]:
        """Which groups each rank scores, and of which groups each scores some rows.

        Of whole groups all ranks have as many, and about as many tokens.

        Args:
            first: An example of the first of them.
        """
        ranks = range(world().size)
        size = self._batch_size * self._n_together()
        n_groups = len(ranks) * _GROUPS_OF_RANK if len(ranks) > 1 else 1
        first -= first % size
        last = min(first + n_groups * size, len(self._dataset))
        groups = [(begin, min(begin + size, last)) for begin in range(first, last, size)]
        n_whole = len(groups) - len(groups) % len(ranks)
        whole, shared = groups[:n_whole], groups[n_whole:]
        n_tokens = [int(self._dataset.lengths[slice(*group)].sum()) for group in whole]
        dealt = world().dealt(np.array(n_tokens))
        hands = [[whole[i] for i in np.flatnonzero(dealt == rank)] for rank in ranks]
        return hands, shared

    def _scored(self, ends: _Ends, device: torch.device, share: slice = slice(None)) -> ScoredGroup:
        """Score a group's examples together, or what its share of the blocks of rows predicts."""
        begin, end = ends
        import torch

        fed = self._fed(np.arange(begin, end))
        order = fed.in_order()
        measurement = None
        if self._measures:
            prepared = {i: made[order.to(made.device)] for i, made in fed.prepared.items()}
            measurement = Measurement(self._measures, len(order), device, prepared)
        which = fed.which[order.to(fed.which.device)]
        asked = Targets(fed.targets[order].to(device), which)
        blocks = row_blocks(fed.hidden, self._layer.n_logits)
        scores = score_rows(self._layer.of_hidden, fed.hidden, asked, blocks[share], measurement)
        block = torch.bucketize(which, which.new_tensor([each.stop for each in blocks]), right=True)
        n = end - begin
        counts = (
            np.bincount(fed.example[fed.is_behind == behind] - begin, minlength=n)
            for behind in (False, True)
        )
        of_labels, behind = (np.concatenate([[0], np.cumsum(each)]) for each in counts)
        return ScoredGroup(begin, end, scores, (of_labels, of_labels[-1] + behind), block)

    def _fed(self, examples: IntArray) -> Fed:
        """What the last layer is fed for some examples."""
        import torch

        layer = self._layer
        size, first = len(examples), int(examples[0])
        beginnings = self._beginnings(examples)
        nodes = []
        if not layer.is_ragged:
            # What is about as long goes in together, so that there is little padding.
            examples = examples[self._dataset.lengths[examples].argsort(kind="stable")]
            size = self._batch_size
        size = min(size, max(1, _TOKENS_TOGETHER // max(self._dataset.longest, 1)))
        parts = []
        for batch in self._dataset.batches(size, examples):
            inputs, rows, positions, targets = self._scorer.asked(batch)
            k = len(rows)
            measuring = Measuring(self._measures, inputs, batch.is_label)
            rows, positions = measuring.everywhere(rows, positions)
            # What is behind labels predicts nothing that counts.
            targets = torch.cat([targets, targets.new_zeros(len(rows) - k)])
            if layer.has_beginnings:
                hidden, which = layer.of_beginnings(inputs, rows, positions)
            else:
                found = layer.hidden(inputs, rows, positions)
                assert found is not None
                hidden, which = found, torch.arange(len(found), device=found.device)
            prepared = measuring.prepared(rows, positions)
            is_behind = np.arange(len(rows)) >= k
            example = batch.example[rows.numpy()]
            parts.append(Fed(example, is_behind, targets, hidden, which, prepared))
            if beginnings is not None:
                nodes.append(beginnings[torch.from_numpy(batch.example)[rows] - first, positions])
        fed = Fed.joined(parts)
        return fed if beginnings is None else fed.merged(torch.cat(nodes))

    def _beginnings(self, examples: IntArray) -> Tensor | None:
        """The number of the beginning of a text that each of its tokens ends: (n, length).

        None where that does not tell what the last layer is fed, or a beginning goes in once.
        """
        import torch

        task = self._scorer.task
        if self._layer.has_beginnings or task.is_encoder_decoder or not task.predicts_in_order:
            return None
        [batch] = self._dataset.batches(len(examples), examples)
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        numbers = torch.full_like(ids, -1)
        numbers[mask.bool()] = nodes_of_beginnings(ids, mask)[0]
        return numbers

    def _n_together(self) -> int:
        """How many batches go in together."""
        slots = self._batch_size * max(self._dataset.longest, 1)
        return max(1, min(_BATCHES_TOGETHER, _TOKENS_TOGETHER // slots))
