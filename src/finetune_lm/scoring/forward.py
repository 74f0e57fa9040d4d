"""A data set's batches go into a model; their losses and what each token costs come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from finetune_lm.constants import ONCE
from finetune_lm.data.batch import Batch, on_device
from finetune_lm.data.dataset import Dataset
from finetune_lm.models.sharding import is_sharded
from finetune_lm.ranks import world
from finetune_lm.scoring.halving import in_halves
from finetune_lm.scoring.joined_outputs import joined_outputs, joined_scores
from finetune_lm.scoring.measuring import Measuring, with_those_behind
from finetune_lm.scoring.outputs import Outputs, Score, measured_tokens, no_scores
from finetune_lm.scoring.scorer import Scorer
from finetune_lm.scoring.shares import called_together, of_this_rank
from finetune_lm.scoring.surprisal import look_up, place_of, score_tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.fast.cross_entropy import TargetScores
    from finetune_lm.scoring.fast.output_layer import OutputLayer
    from finetune_lm.scoring.fast.together import BatchesTogether

T = TypeVar("T")


@dataclass(frozen=True)
class Needs:
    """What is needed of a model's outputs.

    Attributes:
        logits: Whether a loss needs more than the model's own loss, so that the model is called
            the plain way.
        measures: What is measured of the tokens besides their surprisal.
    """

    logits: bool = True
    measures: Sequence[Any] = ()


@dataclass(frozen=True)
class _LossOnly:
    loss: Tensor | None


class Forward:
    """Calls a model with the batches of one data set.

    Args:
        scorer: The model's.
        dataset: The data set.
        batch_size: How many of its examples make a batch.
        needs: What is needed of the outputs.
        pads: Whether examples of different lengths may go in together, padded.

    Attributes:
        model: The model.
    """

    def __init__(
        self,
        scorer: Scorer,
        dataset: Dataset,
        batch_size: int,
        needs: Needs | None = None,
        *,
        pads: bool = True,
    ) -> None:
        needs = needs or Needs()
        self._scorer = scorer
        self.model = scorer.model  # kept alive
        self._dataset = dataset
        self._batch_size = batch_size
        self._pads = pads
        self._measures = needs.measures
        self._is_sharded = is_sharded(scorer.model)
        self._may_be_fast = self._is_fast = scorer.fast and not needs.logits and pads
        # Batches that are preprocessed as they come are not the same twice. Where padding counts in
        # the loss, a batch is to have as much of it as it has alone.
        self._may_group = dataset.preprocessing.strategy == ONCE and dataset.ignore_padding
        self._together: BatchesTogether | None = None

    def forget(self) -> None:
        """Say that the model may have changed since the last batch."""
        self._together = None

    def __call__(self, batch: Batch, device: torch.device, *, alone: bool = True) -> Outputs:
        """The outputs for a batch, with a graph if gradients are enabled.

        Args:
            batch: The batch.
            device: Where the model is.
            alone: False if batches come in the order of the data set and the model does not change
                between them, or `forget` is called, so that several may go in together.
        """
        rows, _ = self._scorer.task.predictions(batch.inputs["labels"])
        if not alone and len(rows) and self._together is not None and self._together.has(batch):
            scored = self._together.scores_of(batch, device)
            if scored is not None:
                return Outputs(_LossOnly(scored.loss), self._looked_up(scored, batch), batch)
        # Dropout on one rank is none of the others' business.
        with world().randomness():
            return self._called(batch, device, alone=alone, is_asked=len(rows) > 0)

    def _called(
        self, batch: Batch, device: torch.device, *, alone: bool, is_asked: bool
    ) -> Outputs:
        """The outputs for a batch of which they are not known, in which something is asked."""
        if is_asked:
            self._is_fast = self._may_be_fast and self._comes_to_the_same(batch, device)
        scored = None
        if not alone and self._may_group and is_asked:
            scored = self._from_together(batch, device)
        if scored is None:
            whole = batch
            if world().size > 1:
                batch = of_this_rank(whole)
            if self._is_sharded:
                plain = partial(self._plain, device=device)
                return called_together(whole, batch, plain, self._scorer, self._measures)
            if not len(batch):
                return Outputs(None, no_scores, batch)
            rows, _ = self._scorer.task.predictions(batch.inputs["labels"])
            if not self._is_fast or not len(rows):
                return self._plain(batch, device)
            with self._weighed(batch, whole):
                scored = self._alone(batch, device)
        return Outputs(_LossOnly(scored.loss), self._looked_up(scored, batch), batch)

    def _weighed(self, share: Batch, whole: Batch) -> AbstractContextManager[object]:
        """Inside, it is known by what the loss of a rank's share counts in that of the batch."""
        if share is whole:
            return nullcontext()
        from finetune_lm.scoring.fast.criterion import to_be_multiplied

        n, n_of_all = self._n_counted([share, whole])
        return to_be_multiplied(n / n_of_all)

    def _measuring(self, batch: Batch) -> Measuring:
        inputs = self._scorer.task.without_labels(self.model, batch.inputs)
        return Measuring(self._measures, inputs, batch.is_label)

    def _looked_up(self, scored: TargetScores, batch: Batch) -> Score:
        rows, positions = self._scorer.task.predictions(batch.inputs["labels"])
        if self._measures:
            rows, positions = with_those_behind(self._measures, batch.is_label, rows, positions)
        return partial(look_up, scored, place_of(batch.is_label.shape, rows, positions))

    def _comes_to_the_same(self, batch: Batch, device: torch.device) -> bool:
        found = self._scorer.comes_to_the_same(batch, self._layer, device)
        if found is None:
            # What is no number in one text gets into others that share its beginning.
            self._may_be_fast = False
        return bool(found)

    @cached_property
    def _layer(self) -> OutputLayer:
        # Padding that counts in the loss must be predicted, so it must stay.
        return self._scorer.layer(
            may_pack=self._dataset.ignore_padding, longest=self._dataset.longest
        )

    def _from_together(self, batch: Batch, device: torch.device) -> TargetScores | None:
        from finetune_lm.scoring.fast.together import BatchesTogether

        # Ranks that looked at different examples may have found different things of the model.
        if not world().all(self._is_fast and self._layer.resumes_alone):
            return None
        if self._together is None:
            self._together = BatchesTogether(
                self._scorer, self._layer, self._dataset, self._batch_size, self._measures
            )
        scored = self._together.scores_of(batch, device)
        self._may_group = scored is not None
        return scored

    def _plain(self, batch: Batch, device: torch.device) -> Outputs:
        import torch

        def call(part: Batch) -> Any:
            return self._scorer.task.outputs(self.model, on_device(part.inputs, device))

        if self._pads:
            outputs = self._in_halves(batch, call, joined_outputs)
        else:
            rows, parts = zip(*batch.without_padding(), strict=True)
            found = [self._in_halves(part, call, joined_outputs) for part in parts]
            if self._is_sharded:
                # Ranks whose texts have more lengths call it more often.
                for _ in range(max(world().gather(len(parts))) - len(parts)):
                    call(parts[0])
            outputs = found[0]
            if len(parts) > 1:
                outputs = joined_outputs(found, self._n_counted(parts), torch.cat(rows).argsort())
        if not self._measures:
            return Outputs(outputs, partial(score_tokens, outputs.logits), batch)
        score = partial(measured_tokens, outputs.logits, self._measuring(batch))
        return Outputs(outputs, score, batch)

    def _n_counted(self, parts: Sequence[Batch]) -> list[int]:
        """How many labels of each part of a batch count in its loss."""
        return [int(self._scorer.task.counted(part.inputs["labels"]).sum()) for part in parts]

    def _alone(self, batch: Batch, device: torch.device) -> TargetScores:
        """The labels of a batch that count, scored, in the order of their predictions."""
        score = partial(
            self._scorer.score, layer=self._layer, device=device, measures=self._measures
        )
        return self._in_halves(batch, score, joined_scores)

    def _in_halves(
        self, batch: Batch, do: Callable[[Batch], T], join: Callable[[list[T], list[int]], T]
    ) -> T:
        """Do something with a batch; with each half of it if memory does not do for the whole.

        Args:
            batch: The batch.
            do: What is done.
            join: Makes one result of those of the parts, given how many labels of each count.
        """
        import torch

        if torch.is_grad_enabled() or self._is_sharded:
            # What is learned from is one step, whose size is not for the machine to choose; and
            # ranks that share a model call it equally often.
            return do(batch)
        done = in_halves(batch, do, _halves, _described)
        parts, results = map(list, zip(*done, strict=True))
        return results[0] if len(results) == 1 else join(results, self._n_counted(parts))


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch) // 2
    return [batch.select(slice(middle)), batch.select(slice(middle, None))] if middle else []


def _described(batch: Batch) -> str:
    n, length = batch.inputs["input_ids"].shape
    return f"{n} examples of {length} tokens: such batches go through the model"
