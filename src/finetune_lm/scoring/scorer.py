"""The one door to a model: a batch goes in, its loss and what each token costs come out.

The plain way is ``model(**batch)``. Where nobody needs all logits, the fast way (the package
`fast`) computes those that predict a label, without padding where the model allows it. Where
nothing is learned besides, several batches go in together, and what their texts have in common
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from finetune_lm.constants import ONCE
from finetune_lm.data.batch import Batch, on_device
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.messages import say_once
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.scoring.halving import free_memory, in_halves
from finetune_lm.scoring.surprisal import Scores, in_bits, mean_cost, score_tokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.fast.cross_entropy import TargetScores
    from finetune_lm.scoring.fast.output_layer import OutputLayer

Score = Callable[["Tensor", "Tensor", "Tensor"], Scores]
"""Tells what tokens cost, given the row and the position of the logits that predict each, and the
tokens: (n,) each."""

T = TypeVar("T")

# How far the fast way's loss may be from the plain one's, relative to it.
_TOLERANCE = 1e-5
# How far a model's own loss may be from that of its logits besides, in nats: torch's float32
# cross-entropy is up to 4e-5 off where a likely token is one of 256,000, in some processors.
_TOLERANCE_OF_OWN_LOSS = 1e-4
# How many tokens go through a model together where nothing is learned, padding included.
_TOKENS_TOGETHER = 8192
_BATCHES_TOGETHER = 16


@dataclass(frozen=True)
class Outputs:
    """What came out of a model for one batch.

    Attributes:
        for_losses: What losses are given: ``loss``, the model's own, and, unless they say that they
            do not need them, ``logits`` and all else that the model returns.
        score: Tells what tokens cost.
    """

    for_losses: Any
    score: Score


@dataclass(frozen=True)
class _LossOnly:
    loss: Tensor | None


class Forward:
    """Calls a model with the batches of one data set.

    Args:
        model: The model.
        dataset: The data set.
        batch_size: How many of its examples make a batch.
        needs_logits: Whether a loss needs more than the model's own loss.
        fast: Whether to take the fast way where it comes to the same.
        pads: Whether examples of different lengths may go in together, padded.
        layer: Finds the model's output layer, whose check serves all data sets; by default one of
            its own.
    """

    def __init__(
        self,
        model: Any,
        dataset: Dataset,
        batch_size: int,
        *,
        needs_logits: bool = True,
        fast: bool = False,
        pads: bool = True,
        layer: Callable[[], OutputLayer] | None = None,
    ) -> None:
        self._model = model
        self._dataset = dataset
        self._task = dataset.task
        self._batch_size = batch_size
        self._pads = pads
        self._may_be_fast = self._is_fast = fast and not needs_logits and pads
        # Batches that are preprocessed as they come are not the same twice. Where padding counts in
        # the loss, a batch is to have as much of it as it has alone.
        self._may_group = dataset.preprocessing.strategy == ONCE and dataset.ignore_padding
        self._group: tuple[int, int] = (0, 0)
        self._group_scores: TargetScores | None = None
        self._group_ends: Any = None
        self._find_layer = layer
        self._layer: OutputLayer | None = None

    def forget(self) -> None:
        """Say that the model may have changed since the last batch."""
        self._group, self._group_scores = (0, 0), None

    def __call__(self, batch: Batch, device: torch.device, *, alone: bool = True) -> Outputs:
        """The outputs for a batch, with a graph if gradients are enabled.

        Args:
            batch: The batch.
            device: Where the model is.
            alone: False if batches come in the order of the data set and the model does not change
                between them, or `forget` is called, so that several may go in together.
        """
        rows, positions = self._task.predictions(batch.inputs["labels"])
        if len(rows):
            self._is_fast = self._may_be_fast and self._is_same(batch, rows, device)
        if not self._is_fast or not len(rows):
            return self._plain(batch, device)
        index = np.full(_logits_shape(batch), -1)
        index[rows.numpy(), positions.numpy()] = np.arange(len(rows))
        scored = None
        if not alone and self._may_group and self._output_layer().resumes_alone:
            scored = self._from_group(batch, len(rows), device)
        if scored is None:
            scored = self._alone(batch, device)
        return Outputs(_LossOnly(scored.loss), partial(_look_up, scored, index))

    def _plain(self, batch: Batch, device: torch.device) -> Outputs:
        import torch

        def call(part: Batch) -> Any:
            return self._model(**on_device(part.inputs, device))

        if self._pads:
            outputs = self._in_halves(batch, call, _joined_outputs)
        else:
            rows, parts = zip(*batch.without_padding(), strict=True)
            found = [self._in_halves(part, call, _joined_outputs) for part in parts]
            outputs = found[0]
            if len(parts) > 1:
                outputs = _joined_outputs(found, self._n_counted(parts), torch.cat(rows).argsort())
        return Outputs(outputs, partial(score_tokens, outputs.logits))

    def _n_counted(self, parts: Sequence[Batch]) -> list[int]:
        """How many labels of each part of a batch count in its loss."""
        return [int(self._task.counted(part.inputs["labels"]).sum()) for part in parts]

    def _alone(self, batch: Batch, device: torch.device) -> TargetScores:
        """The labels of a batch that count, scored, in the order of their predictions."""
        return self._in_halves(batch, lambda part: self._score(part, device), _joined_scores)

    def _in_halves(
        self, batch: Batch, do: Callable[[Batch], T], join: Callable[[list[T], list[int]], T]
    ) -> T:
        """Do something with a batch; with each half of it if memory does not do for the whole.

        Args:
            batch: The batch.
            do: What is done.
            join: Makes one result of those of the parts, given how many labels of each count.
        """
        done = in_halves(batch, do, _halves, _described)
        parts, results = map(list, zip(*done, strict=True))
        return results[0] if len(results) == 1 else join(results, self._n_counted(parts))

    def _score(self, batch: Batch, device: torch.device) -> TargetScores:
        from finetune_lm.scoring.fast.cross_entropy import CrossEntropy, TargetScores

        inputs, rows, positions, targets = self._asked(batch)
        criterion = CrossEntropy(targets.to(device))
        return TargetScores(*self._output_layer().judged(criterion, inputs, rows, positions))

    def _from_group(self, batch: Batch, n: int, device: torch.device) -> TargetScores | None:
        """The scores of a batch, from those of all batches around it.

        None if memory does not do for these together; then none go in together any more.
        """
        from finetune_lm.scoring.fast.cross_entropy import TargetScores

        first = int(batch.example[0])
        if self._group_scores is None or not self._group[0] <= first < self._group[1]:
            try:
                self._score_group(first, device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._may_group = False
        if not self._may_group:
            free_memory()
            return None
        assert self._group_scores is not None
        begin = first - self._group[0]
        part = slice(self._group_ends[begin], self._group_ends[begin + len(batch)])
        scores = self._group_scores
        assert part.stop - part.start == n
        nll = scores.nll[part]
        return TargetScores(nll.mean(), nll, scores.best_id[part], scores.best_nll[part])

    def _score_group(self, first: int, device: torch.device) -> None:
        """Score the batches that go in together, of which one begins with this example.

        Which do is a matter of the data set alone, so that a batch comes out the same wherever an
        evaluation begins.
        """
        from finetune_lm.scoring.fast.cross_entropy import score_rows

        layer = self._output_layer()
        size = self._batch_size * self._n_together()
        begin = first // size * size
        end = min(begin + size, len(self._dataset))
        example, targets, hidden, which = self._fed_together(np.arange(begin, end), device)
        self._group_scores = score_rows(layer.of_hidden, hidden, which, targets)
        self._group = (begin, end)
        counts = np.bincount(example - begin, minlength=end - begin)
        self._group_ends = np.concatenate([[0], np.cumsum(counts)])

    def _fed_together(
        self, examples: IntArray, device: torch.device
    ) -> tuple[IntArray, Tensor, Tensor, Tensor]:
        """What the last layer is fed for some examples.

        Returns:
            In the order of the examples the example, (k,), and the token of each prediction, (k,);
            rows that the layer is fed, (n, width), and which of them each prediction has, (k,).
        """
        import torch

        layer = self._output_layer()
        if layer.has_beginnings:
            [batch] = self._dataset.batches(len(examples), examples)
            inputs, rows, positions, targets = self._asked(batch)
            hidden, which = layer.of_beginnings(inputs, rows, positions)
            return batch.example[rows.numpy()], targets.to(device), hidden, which
        size = len(examples)
        if not layer.is_ragged:
            # What is about as long goes in together, so that there is little padding.
            examples = examples[self._dataset.lengths[examples].argsort(kind="stable")]
            size = self._batch_size
        of_batches = []
        for batch in self._dataset.batches(size, examples):
            inputs, rows, positions, targets = self._asked(batch)
            fed = layer.hidden(inputs, rows, positions)
            assert fed is not None
            of_batches.append((torch.from_numpy(batch.example)[rows], targets, fed))
        example, targets, hidden = map(torch.cat, zip(*of_batches, strict=True))
        order = example.argsort(stable=True)
        return example[order].numpy(), targets[order].to(device), hidden, order.to(device)

    def _asked(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """What the model is called with, and the row, position and token of each prediction."""
        rows, positions = self._task.predictions(batch.inputs["labels"])
        targets = batch.inputs["labels"][rows, positions + self._task.label_offset]
        return self._task.without_labels(self._model, batch.inputs), rows, positions, targets

    def _n_together(self) -> int:
        """How many batches go in together."""
        slots = self._batch_size * max(self._dataset.longest, 1)
        return max(1, min(_BATCHES_TOGETHER, _TOKENS_TOGETHER // slots))

    def _output_layer(self) -> OutputLayer:
        from finetune_lm.scoring.fast.output_layer import OutputLayer

        if self._layer is None:
            # Padding that counts in the loss must be predicted, so it must stay.
            find = self._find_layer or partial(
                OutputLayer, self._model, may_pack=self._dataset.ignore_padding
            )
            self._layer = find()
        return self._layer

    def _is_same(self, batch: Batch, rows: Tensor, device: torch.device) -> bool:
        """Whether the fast way comes to the same, which the first batch of a model shows.

        A few of its examples do; fewer if memory does not do for these, since the plain way takes
        more of it than the fast one. A batch that has what those before had not is looked at again.
        """
        from finetune_lm.scoring.fast.output_layer import ALL_SEEN, examples_to_compare, seen_in

        layer = self._output_layer()
        if not layer.is_there or layer.gives_own_loss is False:
            return False
        if layer.own_loss_seen < ALL_SEEN:
            mask = batch.inputs["attention_mask"]
            seen = seen_in(mask, rows)
            if layer.gives_own_loss is None or not seen <= layer.own_loss_seen:
                few = batch.select(examples_to_compare(mask, rows).numpy())
                layer.gives_own_loss = self._gives_own_loss_in_parts(few, device)
                if layer.gives_own_loss is None:
                    # What is no number in one text gets into others that share its beginning.
                    self._may_be_fast = False
                else:
                    layer.own_loss_seen |= seen
        return layer.selects and bool(layer.gives_own_loss)

    def _gives_own_loss_in_parts(self, batch: Batch, device: torch.device) -> bool | None:
        """The same as `_gives_own_loss`, by a part of the batch if memory does not do for all."""
        while True:
            try:
                return self._gives_own_loss(batch, device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
            if len(batch) == 1:
                say_once(
                    "fast: the model is called as usual, since memory does not do for comparing."
                )
                return False
            batch = batch.select(slice(0, len(batch) // 2))

    def _gives_own_loss(self, batch: Batch, device: torch.device) -> bool | None:
        """Whether the loss of the fast way is the model's own; None if the model finds no numbers.

        Both are compared with what the plain way's logits cost in float64.
        """
        import torch

        layer = self._output_layer()
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                outputs = self._model(**on_device(batch.inputs, device))
                own = outputs.loss.item()
                _, *asked = self._asked(batch)
                plain = mean_cost(outputs.logits, *asked)
                del outputs
                if math.isnan(plain):
                    return None
                fast = self._score(batch, device).loss.item()
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            say_once(f"fast: the model is called as usual, since it must be: {error}")
            return False
        finally:
            self._model.train(was_training)
        kind = layer.autocast_to or self._model.dtype
        is_same = _is_near(fast, plain, kind) and _is_near(own, plain, kind, _TOLERANCE_OF_OWN_LOSS)
        if layer.selects and not is_same:
            say_once(
                f"fast: the model is called as usual, since its own loss is another ({own:.6g} "
                f"instead of {fast:.6g})."
            )
        return is_same


def _halves(batch: Batch) -> list[Batch]:
    middle = len(batch) // 2
    return [batch.select(slice(middle)), batch.select(slice(middle, None))] if middle else []


def _described(batch: Batch) -> str:
    n, length = batch.inputs["input_ids"].shape
    return f"{n} examples of {length} tokens: such batches go through the model"


def _joined_outputs(parts: list[Any], sizes: list[int], order: Tensor | None = None) -> Any:
    """The outputs for several parts of a batch as those for the whole.

    Tensors with a row for each example, and collections of such, are put together, those of shorter
    examples with zeros behind; the loss is the mean over labels. What is left out are caches, and
    single values such as other losses.

    Args:
        parts: The outputs for each part.
        sizes: How many labels of each count.
        order: Where in the parts, one behind the other, each example of the batch is.
    """
    import torch

    counted = [(part.loss, n) for part, n in zip(parts, sizes, strict=True) if n]
    total = sum(loss * n for loss, n in counted) / max(sum(sizes), 1)
    fields = {
        name: _joined([part[name] for part in parts], order)
        for name, value in parts[0].items()
        if isinstance(value, (torch.Tensor, tuple, list)) and getattr(value, "ndim", 1) > 0
    }
    return type(parts[0])(loss=torch.as_tensor(total), **fields)


def _joined(values: list[Any], order: Tensor | None) -> Any:
    import torch

    if not isinstance(values[0], torch.Tensor):
        return tuple(_joined(list(each), order) for each in zip(*values, strict=True))
    if order is None:
        return torch.cat(values)
    shape = [sum(map(len, values)), *map(max, zip(*(v.shape[1:] for v in values), strict=True))]
    joined = values[0].new_zeros(shape)
    begin = 0
    for value in values:
        joined[(slice(begin, begin + len(value)), *map(slice, value.shape[1:]))] = value
        begin += len(value)
    return joined[order.to(joined.device)]


def _joined_scores(parts: list[TargetScores], sizes: list[int]) -> TargetScores:
    import torch

    from finetune_lm.scoring.fast.cross_entropy import TargetScores

    del sizes
    nll, best_id, best_nll = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("nll", "best_id", "best_nll")
    )
    return TargetScores(nll.mean(), nll, best_id, best_nll)


def _is_near(found: float, expected: float, kind: torch.dtype, besides: float = 0.0) -> bool:
    import torch

    tolerance = _TOLERANCE if kind in (torch.float32, torch.float64) else 1e-2
    return abs(found - expected) <= tolerance * max(abs(expected), 1.0) + besides


def _logits_shape(batch: Batch) -> tuple[int, int]:
    n, length = batch.inputs["labels"].shape
    return n, length


def _look_up(
    scored: TargetScores, index: Any, rows: Tensor, positions: Tensor, targets: Tensor
) -> Scores:
    """What tokens cost, all of which are among those that were scored."""
    del targets
    which = index[rows.numpy(), positions.numpy()]
    assert (which >= 0).all()
    return in_bits(scored.nll, scored.best_id, scored.best_nll).take(which)
