"""Several batches through a model together, while it does not change.

What their texts have in common goes in once, and otherwise what is about as long goes in together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.scoring.fast.cross_entropy import TargetScores, score_rows
from finetune_lm.scoring.fast.output_layer import OutputLayer
from finetune_lm.scoring.halving import free_memory
from finetune_lm.scoring.scorer import Scorer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How many tokens go through a model together where nothing is learned, padding included.
_TOKENS_TOGETHER = 8192
_BATCHES_TOGETHER = 16


class BatchesTogether:
    """Scores the batches around each one that is asked for.

    Which go in together is a matter of the data set alone, so that a batch comes out the same
    wherever an evaluation begins.

    Args:
        scorer: The model's.
        layer: Its output layer, for which `OutputLayer.resumes_alone`.
        dataset: The data set.
        batch_size: How many of its examples make a batch.
    """

    def __init__(
        self, scorer: Scorer, layer: OutputLayer, dataset: Dataset, batch_size: int
    ) -> None:
        self._scorer = scorer
        self._layer = layer
        self._dataset = dataset
        self._batch_size = batch_size
        self._begin = self._end = 0
        self._scores: TargetScores | None = None
        self._ends: Any = None

    def scores_of(self, batch: Batch, device: torch.device) -> TargetScores | None:
        """The scores of a batch's labels that count, in the order of their predictions.

        None if memory does not do for all that go in together.
        """
        first = int(batch.example[0])
        if self._scores is None or not self._begin <= first < self._end:
            self._scores = None
            try:
                self._score_around(first, device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
        if self._scores is None:
            free_memory()
            return None
        begin = first - self._begin
        part = slice(self._ends[begin], self._ends[begin + len(batch)])
        scores = self._scores
        nll = scores.nll[part]
        return TargetScores(nll.mean(), nll, scores.best_id[part], scores.best_nll[part])

    def _score_around(self, first: int, device: torch.device) -> None:
        """Score the batches that go in together, of which one begins with this example."""
        size = self._batch_size * self._n_together()
        begin = first // size * size
        end = min(begin + size, len(self._dataset))
        example, targets, hidden, which = self._fed(np.arange(begin, end), device)
        self._scores = score_rows(self._layer.of_hidden, hidden, which, targets)
        self._begin, self._end = begin, end
        counts = np.bincount(example - begin, minlength=end - begin)
        self._ends = np.concatenate([[0], np.cumsum(counts)])

    def _fed(
        self, examples: IntArray, device: torch.device
    ) -> tuple[IntArray, Tensor, Tensor, Tensor]:
        """What the last layer is fed for some examples.

        Returns:
            In the order of the examples the example, (k,), and the token of each prediction, (k,);
            rows that the layer is fed, (n, width), and which of them each prediction has, (k,).
        """
        import torch

        layer = self._layer
        if layer.has_beginnings:
            [batch] = self._dataset.batches(len(examples), examples)
            inputs, rows, positions, targets = self._scorer.asked(batch)
            hidden, which = layer.of_beginnings(inputs, rows, positions)
            return batch.example[rows.numpy()], targets.to(device), hidden, which
        size = len(examples)
        if not layer.is_ragged:
            # What is about as long goes in together, so that there is little padding.
            examples = examples[self._dataset.lengths[examples].argsort(kind="stable")]
            size = self._batch_size
        of_batches = []
        for batch in self._dataset.batches(size, examples):
            inputs, rows, positions, targets = self._scorer.asked(batch)
            fed = layer.hidden(inputs, rows, positions)
            assert fed is not None
            of_batches.append((torch.from_numpy(batch.example)[rows], targets, fed))
        example, targets, hidden = map(torch.cat, zip(*of_batches, strict=True))
        order = example.argsort(stable=True)
        return example[order].numpy(), targets[order].to(device), hidden, order.to(device)

    def _n_together(self) -> int:
        """How many batches go in together."""
        slots = self._batch_size * max(self._dataset.longest, 1)
        return max(1, min(_BATCHES_TOGETHER, _TOKENS_TOGETHER // slots))
