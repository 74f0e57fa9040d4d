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
from finetune_lm.scoring.fast.cross_entropy import Targets, TargetScores, score_rows
from finetune_lm.scoring.fast.output_layer import OutputLayer
from finetune_lm.scoring.fast.ragged import nodes_of_beginnings
from finetune_lm.scoring.fast.scored_groups import Fed, ScoredGroup
from finetune_lm.scoring.halving import free_memory
from finetune_lm.scoring.measuring import Measurement, Measuring
from finetune_lm.scoring.scorer import Scorer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How many tokens go through a model together where nothing is learned, padding included, and how
# many batches. On a GPU each operation must be worth launching.
_TOKENS_TOGETHER = 2**13
_BATCHES_TOGETHER = 16
_MORE_ON_A_GPU = 8
# How many groups each rank scores, or about as many, before all are told.
_GROUPS_OF_RANK = 2


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
        on_gpu = next(scorer.model.parameters()).device.type == "cuda"
        self._more = _MORE_ON_A_GPU if on_gpu else 1
        self._scored: ScoredGroup | None = None
        self._settled: frozenset[str] = frozenset()

    def has(self, batch: Batch) -> bool:
        """Whether all ranks have the scores of a batch, and none can find that they are wrong."""
        scored = self._scored_with(batch)
        if scored is None:
            return False
        counts = scored.n_labels[batch.example - scored.begin]
        return self._traits(batch.example, counts) <= self._settled

    def _traits(self, examples: IntArray, counts: IntArray) -> frozenset[str]:
        """What there is to be seen of the model in a batch with so many labels that count."""
        import torch

        lengths = self._dataset.input_ids.lengths[examples]
        return traits_in(torch.from_numpy(lengths), torch.from_numpy(counts))

    def scores_of(self, batch: Batch, device: torch.device) -> TargetScores | None:
        """The scores of a batch's labels that count, in the order of their predictions.

        None if memory does not do for all that go in together.
        """
        first = int(batch.example[0])
        scored = self._scored_with(batch)
        if scored is None:
            self._scored = None  # whose memory is of use
            self._scored = scored = self._scored_around(first, device)
            if scored is None:
                free_memory()
                return None
        return scored.of_examples(first, len(batch))

    def _scored_with(self, batch: Batch) -> ScoredGroup | None:
        """What was scored last, if the batch is among it."""
        scored = self._scored
        if scored is None or not scored.has(int(batch.example[0])):
            return None
        return scored

    def _scored_around(self, first: int, device: torch.device) -> ScoredGroup | None:
        """Score the batches that go in together, of which one begins with this example.

        Of several ranks each scores its share of as many batches for each, and all are told.
        """
        shares = self._shares(first)
        mine: list[ScoredGroup] | None = None
        try:
            mine = [self._score(group, device) for group in shares[world().rank] if len(group)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        found, settled = zip(*world().gather((mine, self._layer.settled_for)), strict=True)
        self._settled = frozenset.intersection(*settled)
        if None in found:
            return None
        return ScoredGroup.joined([*itertools.chain(*found)]).to(device)

    def _shares(self, first: int) -> list[list[IntArray]]:
        """The groups of examples that each rank scores, which are all around one of them.

        Each rank has texts that begin alike, so that hardly any beginning goes in on two ranks.

        Args:
            first: An example of one of them.
        """
        n_ranks = world().size
        size = self._batch_size * self._n_together()
        n = size * n_ranks * _GROUPS_OF_RANK if n_ranks > 1 else size
        begin = first - first % n
        examples = np.arange(begin, min(begin + n, len(self._dataset)))
        if n_ranks == 1:
            return [[examples]]
        examples, costs = self._alike_together(examples)
        done = costs.cumsum()
        ends = done[-1] * np.arange(1, n_ranks) / n_ranks
        shares = np.split(examples, np.searchsorted(done, ends, side="right"))
        # A share that is a little larger than so many groups is no group more.
        size += size // 8
        return [
            [np.sort(group) for group in np.array_split(share, -(-len(share) // size) or 1)]
            for share in shares
        ]

    def _alike_together(self, examples: IntArray) -> tuple[IntArray, IntArray]:
        """Some examples in the order of their tokens, and about how much each of them costs.

        Returns:
            The examples, and what each adds to what it takes to score them: (n,) each.
        """
        if not self._layer.has_beginnings:
            return examples, self._dataset.lengths[examples]
        beginnings = self._beginnings(examples).numpy()
        # The beginnings of a length are numbered in the order of their tokens.
        order = np.lexsort(beginnings.T[::-1])
        examples, beginnings = examples[order], beginnings[order]
        # Nothing is predicted from the last token.
        beginnings[np.arange(len(examples)), self._dataset.input_ids.lengths[examples] - 1] = -1
        # One that several have goes in once on either side of a border among them. So half of it
        # counts for the first of these, half for the last.
        costs = np.zeros(len(examples), dtype=np.int64)
        for step in (1, -1):
            number, place = np.unique(beginnings[::step], return_index=True)
            found = place[number >= 0] // beginnings.shape[1]
            costs += np.bincount(found, minlength=len(examples))[::step]
        return examples, costs

    def _score(self, examples: IntArray, device: torch.device) -> ScoredGroup:
        """Score a group's examples together, which are in the order of the data set."""
        fed = self._fed(examples)
        order = fed.in_order()
        measurement = None
        if self._measures:
            prepared = {i: made[order.to(made.device)] for i, made in fed.prepared.items()}
            measurement = Measurement(self._measures, len(order), device, prepared)
        which = fed.which[order.to(fed.which.device)]
        asked = Targets(fed.targets[order].to(device), which)
        layer = self._layer
        scores = score_rows(layer.of_hidden, fed.hidden, asked, layer.n_logits, measurement)
        place = np.searchsorted(examples, fed.example)
        of_labels, behind = (
            np.bincount(place[fed.is_behind == is_behind], minlength=len(examples))
            for is_behind in (False, True)
        )
        return ScoredGroup(examples, of_labels, behind, scores)

    def _fed(self, examples: IntArray) -> Fed:
        """What the last layer is fed for some examples."""
        import torch

        layer = self._layer
        size, fed_in_turn = len(examples), examples
        beginnings = self._beginnings(examples) if self._may_merge else None
        nodes = []
        if not layer.is_ragged:
            # What is about as long goes in together, so that there is little padding.
            fed_in_turn = examples[self._dataset.lengths[examples].argsort(kind="stable")]
            size = self._batch_size
        size = min(size, max(1, self._more * _TOKENS_TOGETHER // max(self._dataset.longest, 1)))
        parts = []
        for batch in self._dataset.batches(size, fed_in_turn):
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
                place = np.searchsorted(examples, batch.example)
                nodes.append(beginnings[torch.from_numpy(place)[rows], positions])
        fed = Fed.joined(parts)
        return fed if beginnings is None else fed.merged(torch.cat(nodes))

    @property
    def _may_merge(self) -> bool:
        """Whether the same beginnings of texts go in more than once, and come out the same."""
        task = self._scorer.task
        is_causal = task.predicts_in_order and not task.is_encoder_decoder
        return is_causal and not self._layer.has_beginnings

    def _beginnings(self, examples: IntArray) -> Tensor:
        """The number of the beginning of a text that each of its tokens ends: (n, length).

        -1 for padding.
        """
        import torch

        [batch] = self._dataset.batches(len(examples), examples)
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        numbers = torch.full_like(ids, -1)
        numbers[mask.bool()] = nodes_of_beginnings(ids, mask)[0]
        return numbers

    def _n_together(self) -> int:
        """How many batches go in together."""
        slots = self._batch_size * max(self._dataset.longest, 1)
        return max(1, min(self._more * _BATCHES_TOGETHER, self._more * _TOKENS_TOGETHER // slots))
