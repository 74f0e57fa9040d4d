"""A pass through a data set that can be left after any batch and taken up there; each batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune_lm.analysis.sentence_costs import SentenceCosts
from finetune_lm.constants import STOP
from finetune_lm.data.batch import Batch, to_device
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.errors import UserError
from finetune_lm.evaluation.batch_errors import losses_not_finite, too_large
from finetune_lm.evaluation.losses import FoundLosses, LossValues
from finetune_lm.evaluation.splits import Split
from finetune_lm.models.compiling import compiler_problem
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.randomness import drawn_apart, stream_seed
from finetune_lm.ranks import world
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.recorder import BatchAt, Measured
from finetune_lm.recording.scored_tokens import of_shares
from finetune_lm.runs.context import Run
from finetune_lm.scoring.shares import ranks_of
from finetune_lm.scoring.surprisal import Scores

if TYPE_CHECKING:
    from torch import Tensor


class EpochLosses:
    """Means over an epoch. A batch counts by its labels that count, or by what a loss says.

    Attributes:
        n_not_finite: How many batches were left out since a loss was infinite or no number.
    """

    def __init__(self) -> None:
        self.n_not_finite = 0
        self._n_labels = 0
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._own: set[str] = set()

    def add(
        self, losses: Mapping[str, float], n_labels: int, weights: Mapping[str, float] | None = None
    ) -> None:
        """Take in a batch.

        Args:
            losses: Its losses by column.
            n_labels: How many of its labels count.
            weights: By what the losses count that are no means over these labels.
        """
        weights = weights or {}
        self._n_labels += n_labels
        self._own |= weights.keys()
        for name, value in losses.items():
            weight = weights.get(name, n_labels)
            self._sums[name] = self._sums.get(name, 0.0) + value * weight
            self._weights[name] = self._weights.get(name, 0) + weight

    def means(
        self, dataset_name: str, reduced: Callable[[Mapping[str, float]], float] | None = None
    ) -> dict[str, float]:
        """The mean of each loss.

        Args:
            dataset_name: What the data set is called, for the message.
            reduced: Makes of the means of the losses that of what is minimised, where these are not
                all means over the same.

        Raises:
            UserError: If no label of the data set counts.
        """
        if not self._n_labels:
            raise UserError(
                f"{dataset_name} has nothing to predict: all of its labels are ignored. Masked "
                f"language models need masks, in the file or from a data_preprocessing_fn."
            )
        # A loss that counts by nothing is 0.
        means = {name: total / (self._weights[name] or 1) for name, total in self._sums.items()}
        if reduced is not None and self._own:
            means[LOSS] = reduced(means)
        return means

    @property
    def is_empty(self) -> bool:
        """Whether no label has counted so far."""
        return self._n_labels == 0

    def state_dict(self) -> dict[str, Any]:
        """What was taken in so far."""
        return {
            "n_not_finite": self.n_not_finite,
            "n_labels": self._n_labels,
            "sums": dict(self._sums),
            "weights": dict(self._weights),
            "own": sorted(self._own),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.n_not_finite = state["n_not_finite"]
        self._n_labels = state["n_labels"]
        self._sums, self._weights = dict(state["sums"]), dict(state["weights"])
        self._own = set(state["own"])


class Pass:
    """One pass through a data set, and how far it has come; of a model with two modes, in both.

    Attributes:
        n_batches: How many batches there were so far.
        n_examples: How many examples these took, before any preprocessing per batch.
        lr: The learning rate of the last batch that was learned from; None before there is one.
        losses: The losses of the batches in each mode.
        costs: What sentences cost so far, where pairs are scored: of several ranks the first does.
        found: What the data came to in the modes in which they were gone through.
    """

    def __init__(self) -> None:
        self.n_batches = 0
        self.n_examples = 0
        self.lr: float | None = None
        self.losses: dict[str | None, EpochLosses] = {}
        self.costs = SentenceCosts()
        self.found: dict[str | None, dict[str, float]] = {}

    @property
    def has_begun(self) -> bool:
        """Whether there was a batch yet."""
        return self.n_batches > 0 or bool(self.found)

    @property
    def n_not_finite(self) -> int:
        """In how many batches a loss was infinite or no number."""
        return sum(each.n_not_finite for each in self.losses.values())

    def batches(
        self, split_of: Callable[[int], Split], order: IntArray, epoch: int
    ) -> Iterator[tuple[int, Split, Batch]]:
        """The batches that are left, each with its number and the data set that it is of.

        A batch counts as done as soon as it is given out, so that whoever has dealt with one can
        ask `state_dict` where to go on.

        Args:
            split_of: Says of which data set the batch of a number is, before it is put together.
                All have the same examples.
            order: The order in which to take all of the examples.
            epoch: The epoch that this is a pass of; -1 before the first.
        """
        while self.n_examples < len(order):
            number, begin = self.n_batches, self.n_examples
            split = split_of(number)
            end = begin + split.batch_size
            self.n_examples = end
            # Preprocessing may leave none of the examples; they then are no batch.
            made = split.dataset.batches(split.batch_size, order[begin:end])
            if split.own_seed is not None:
                # Another stream for each, so that the pass can be taken up at any of them.
                made = drawn_apart(stream_seed(split.own_seed, epoch + 1, begin), made)
            for batch in made:
                self.n_batches += 1
                yield number, split, batch

    def take_in(self, measured: Measured) -> None:
        """Take in the losses of a batch, unless one of them is infinite or no number."""
        if measured.split.pairs is not None and world().is_first:
            measured.split.pairs.take_in(self.costs, measured)
        if measured.losses is None:
            return
        losses = self.losses_of(measured.split)
        if not measured.is_finite:
            losses.n_not_finite += 1
            return
        self.lr = measured.lr
        losses.add(measured.losses, measured.n_labels, measured.weights)

    def losses_of(self, split: Split) -> EpochLosses:
        """The losses of the batches in the mode of a data set."""
        return self.losses.setdefault(split.mode, EpochLosses())

    def means_of(self, split: Split) -> dict[str, float]:
        """The mean of each loss over a data set that was gone through.

        Raises:
            UserError: If no label of it counts.
        """
        assert split.losses is not None
        return self.losses_of(split).means(split.dataset.name, split.losses.reduced)

    def left(self, splits: Mapping[str | None, Split]) -> Iterator[Split]:
        """The data set in each mode in which it was not gone through yet."""
        left = [split for mode, split in splits.items() if mode not in self.found]
        for number, split in enumerate(left):
            if number:
                self.n_batches = self.n_examples = 0
                self.costs = SentenceCosts()
            yield split

    def state_dict(self) -> dict[str, Any]:
        """How far it has come, in plain types."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        costs = None if self.costs.is_empty else self.costs.state_dict()
        losses = {mode: each.state_dict() for mode, each in self.losses.items()}
        return {**numbers, "losses": losses, "costs": costs, "found": dict(self.found)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name in _NUMBERS:
            setattr(self, name, state[name])
        for mode, losses in state["losses"].items():
            self.losses.setdefault(mode, EpochLosses()).load_state_dict(losses)
        if state["costs"] is not None:
            self.costs.load_state_dict(state["costs"])
        self.found = {mode: dict(found) for mode, found in state["found"].items()}


_NUMBERS = ("n_batches", "n_examples", "lr")


def record(run: Run, measured: Measured, progress: Pass) -> None:
    """Take in what came of a batch and tell those who listen, once its numbers are there.

    Args:
        run: What is run.
        measured: What came of the batch.
        progress: The pass that it is of.

    Raises:
        UserError: If a loss of it, or of the one before, is not finite and that is to stop the run.
    """

    def take_in(measured: Measured) -> None:
        is_wrong = measured.losses is not None and not measured.is_finite
        if is_wrong and run.args.on_nan == STOP:
            raise losses_not_finite(measured)
        progress.take_in(measured)

    run.recorders.batch_to_come(measured, take_in, at_once=run.waits_for_numbers)


def measure_batch(
    run: Run, at: BatchAt, *, alone: bool = True, lr: float | None = None
) -> tuple[Measured, Tensor | None]:
    """Call the model with a batch, and compute the losses if something in it is to be predicted.

    Args:
        run: What is run.
        at: The batch.
        alone: As of `scoring.forward.Forward`.
        lr: The learning rate of the step that the batch leads to.

    Returns:
        What came of it, and what is to be minimised: the ranks' gradients of it add up to those of
        the loss. None if there is no loss, or nothing that this rank could learn from.

    Raises:
        UserError: If a loss is not one number, or to be learned from and no function of the model.
    """
    import torch

    split, n_labels, device = at.split, at.n_labels, run.accelerator.device
    has_losses = split.losses is not None and n_labels > 0
    learns = torch.is_grad_enabled() and has_losses
    loss: LossValues | None = None
    with torch.set_grad_enabled(learns):
        outputs = split.forward(at.batch, device, alone=alone)
        share = replace(at, batch=outputs.batch)
        is_shared = share.batch is not at.batch
        # Before the losses, which may change the logits.
        tokens = share.scored(outputs.score)
        if has_losses:
            # A copy: the rows need them as they are, whatever a loss does to its own.
            labels = to_device(outputs.batch.inputs["labels"], device, copy=True)
            n_of_share = share.n_labels if is_shared else None
            with run.world.randomness() if is_shared else nullcontext():
                loss = split.losses(outputs.for_losses, labels, n_of_share)
    found = None
    if loss is not None:
        found = FoundLosses(loss.numbers(), loss.counts, split.losses.epoch_weights())
    if is_shared or (loss is not None and run.world.size > 1 and split.losses.of_own_shares):
        mine = tokens.scores if tokens is not None and is_shared else None
        if found is not None:
            found = replace(found, numbers=dict(found.numbers))
        told = run.world.gather((found, mine))
        if found is not None:
            found = split.losses.joined([losses for losses, _ in told], are_shares=is_shared)
        if mine is not None:
            scores = [each or Scores.of_none() for _, each in told]
            tokens = at.scored(of_shares(scores, ranks_of(at.batch)))
    if loss is None or found is None:
        return at.measured(tokens, None), None
    measured = at.measured(tokens, found.numbers, lr, found.weights)
    if not learns:
        return measured, None
    to_learn = loss.of_share(found.counts)
    if outputs.nothing is not None:
        to_learn = outputs.nothing if to_learn is None else to_learn + outputs.nothing
    if to_learn is not None and not to_learn.requires_grad:
        raise UserError(
            "a training loss must depend on the model, but it gets no gradient from "
            f"{', '.join(split.losses.names)} as they are reduced."
        )
    return measured, to_learn


@contextmanager
def batch_watched(at: BatchAt) -> Iterator[None]:
    """Turn what no batch should bring about into errors for users.

    Args:
        at: The batch that is dealt with meanwhile.

    Raises:
        UserError: If memory runs out, in which batch, and what to lower; if the model cannot be
            compiled.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise too_large(at, error) from error
        if (problem := compiler_problem(error)) is not None:
            raise UserError(problem) from error
        raise
