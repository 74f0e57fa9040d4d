"""Who listens to a run. The loops do not know who does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import BY_LOSS
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.waiting_rows import WaitingRows

if TYPE_CHECKING:
    import pyarrow as pa

    from finetune_lm.data.batch import Batch
    from finetune_lm.recording.shared_rows import Rows
    from finetune_lm.scoring.outputs import Score


def named_in_mode(name: str, mode: str | None) -> str:
    """What something is called that there is in each mode of a model.

    Example:
        >>> named_in_mode("train", "mlm"), named_in_mode("train", None)
        ('train_mlm', 'train')
    """
    return name if mode is None else f"{name}_{mode}"


@dataclass(frozen=True)
class BatchAt:
    """A batch, and where in a run it is.

    Attributes:
        split: The data that it is of, an `evaluation.splits.Split`.
        batch: The batch.
        epoch: The epoch; None where there is none.
        number: Its number in the epoch.
        step: How many updates there were before it; None where the table does not say so.
    """

    split: Any
    batch: Batch
    epoch: Any
    number: int
    step: int | None = field(default=None, kw_only=True)

    @property
    def n_labels(self) -> int:
        """How many of its labels count in its loss."""
        return int(self.split.dataset.task.counted(self.batch.inputs["labels"]).sum())

    def scored(self, score: Score) -> ScoredTokens | None:
        """What its tokens cost, whatever is done to the logits afterwards.

        None where nobody asks: there is no table, and no pairs are scored.
        """
        if self.split.rows is None and self.split.pairs is None:
            return None
        return ScoredTokens.of(self.batch, self.split.dataset.task, score)

    def measured(
        self,
        tokens: ScoredTokens | None,
        losses: Mapping[str, float] | None,
        lr: float | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Measured:
        """What came of it."""
        if tokens is not None and self.split.rows is not None:
            self.split.rows.n_seen += len(tokens)
        at = self.split, self.batch, self.epoch, self.number
        return Measured(*at, tokens, losses, lr, weights or {}, step=self.step)


@dataclass(frozen=True)
class Measured(BatchAt):
    """What came of one batch.

    Attributes:
        tokens: What its tokens cost, before the losses saw the outputs; None where nobody asks.
        losses: Its losses by column; None where nothing is to be predicted, so that there are none,
            and where none are computed.
        lr: The learning rate of the step that it leads to; None if it leads to none.
        weights: By what losses count in an epoch's mean that are no means over the labels.
    """

    tokens: ScoredTokens | None
    losses: Mapping[str, float] | None
    lr: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def rows(self) -> pa.Table:
        """Its rows of the table of tokens, made when first asked for."""
        rows: pa.Table = self.split.rows.of_batches([self]).table
        return rows

    @property
    def is_finite(self) -> bool:
        """Whether there are losses, none of which is infinite or not a number."""
        return self.losses is not None and all(map(math.isfinite, self.losses.values()))


@dataclass(frozen=True)
class ProbePass:
    """A pass over all probes, and where in a training it is.

    Attributes:
        epoch: The epoch after whose updates it is, or in the middle of which; -1 before the
            training.
        step: How many updates there were before it.
    """

    epoch: int
    step: int

    @property
    def is_first(self) -> bool:
        """Whether it is the one before the training."""
        return self.epoch < 0


@dataclass(frozen=True)
class EpochResult:
    """What came of one epoch.

    Attributes:
        number: The epoch.
        train: The mean of each loss over the training data, by column.
        validation: The same over the validation data.
        best: The best epoch by now, None if there is none yet, and the number it was chosen by.
        patience_left: How many epochs may still go by without a better one; None without limit.
        lr: The learning rate of its last batch; None if nothing was learned.
        select_by: By which number of the validation data the best epoch is chosen.
        by_mode: Of a model in two modes, the means of each loss in each of them, by ``train_lm``,
            ``validation_lm`` and so on. ``train`` is empty then, and ``validation`` what the epoch
            is judged by.
    """

    number: int
    train: Mapping[str, float]
    validation: Mapping[str, float]
    best: tuple[int | None, float]
    patience_left: int | None
    lr: float | None = None
    select_by: str = BY_LOSS
    by_mode: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Recorder:
    """Listens to a training. What is not of interest does nothing.

    One that has something to go on from has ``state_dict``, and ``load_state_dict`` unless it is
    given its state when it is made; `training.start` names those whose state is in checkpoints.
    """

    def begin(self, n_epochs_done: int) -> None:
        """The training begins, or goes on after so many epochs."""

    def batch(self, measured: Measured) -> None:
        """A batch was learned from, as it was before its update, or validated."""

    def token_rows(self, rows: Rows) -> None:
        """Rows are ready of batches that were told of, in their order.

        All of an epoch, those of training too, are before `pass_over` of validation data.
        """

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """The training or the validation data were gone through.

        Args:
            dataset_type: ``train`` or ``validation``.
            epoch: The epoch.
            means: The mean of each loss by column. They may be given again for the training data: a
                run that is gone on with in a validation has trained already.
            mode: Of a model in two modes, in which; of training data those that were learned from
                in it.
        """

    def probe(self, measured: Measured, at: ProbePass, share: float) -> None:
        """A batch of probes was measured.

        Args:
            measured: What came of it.
            at: The pass of which it is.
            share: How much of the pass is done with it, from 0 to 1.
        """

    def probe_rows(self, rows: Rows) -> None:
        """Rows are ready of batches of probes that were told of, in their order.

        They are of one data set. All of a pass are before its `probes_over`.
        """

    def probes_over(self, at: ProbePass) -> None:
        """All probes were gone through."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch is over. What is raised here ends the training."""

    def end(self) -> None:
        """The training is over, however it ended."""


class Recorders(Recorder):
    """All who listen to a run, told one after another: the one place where they are told.

    Rows are told of many batches together (`WaitingRows`).

    Args:
        *recorders: They, in order.
    """

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders
        # Rows that nobody listens to need not be made.
        of_tokens = [r for r in recorders if type(r).token_rows is not Recorder.token_rows]
        of_probes = [r for r in recorders if type(r).probe_rows is not Recorder.probe_rows]
        self._waiting = WaitingRows([each.token_rows for each in of_tokens])
        self._waiting_probes = WaitingRows([each.probe_rows for each in of_probes])
        self._to_come: tuple[Measured, Callable[[Measured], object]] | None = None

    def begin(self, n_epochs_done: int) -> None:
        """Tell all of them."""
        for recorder in self._recorders:
            recorder.begin(n_epochs_done)

    def batch(self, measured: Measured) -> None:
        """Tell all of them; its rows come later."""
        for recorder in self._recorders:
            recorder.batch(measured)
        self._waiting.add(measured)

    def batch_to_come(
        self, measured: Measured, take_in: Callable[[Measured], object], *, at_once: bool
    ) -> None:
        """Tell all of them of a batch whose numbers may still be computed.

        Args:
            measured: What came of it.
            take_in: Called before they are told.
            at_once: False for telling it when the next one comes, or anything else is told, so that
                its numbers are not waited for.
        """
        self.settle()
        self._to_come = measured, take_in
        if at_once:
            self.settle()

    def settle(self) -> None:
        """Tell of the batch that is still to be told of, if there is one."""
        if self._to_come is None:
            return
        (measured, take_in), self._to_come = self._to_come, None
        take_in(measured)
        self.batch(measured)

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Tell all of them."""
        self.settle()
        if dataset_type == "validation":
            self._waiting.write()
        for recorder in self._recorders:
            recorder.pass_over(dataset_type, epoch, means, mode)

    def probe(self, measured: Measured, at: ProbePass, share: float) -> None:
        """Tell all of them; its rows come later."""
        self.settle()
        for recorder in self._recorders:
            recorder.probe(measured, at, share)
        self._waiting_probes.add(measured)

    def probes_over(self, at: ProbePass) -> None:
        """Tell all of them."""
        self.settle()
        self._waiting_probes.write()
        for recorder in self._recorders:
            recorder.probes_over(at)

    def write_rows(self) -> None:
        """Let nothing wait any longer: whoever takes the state of those who listen needs that."""
        try:
            self.settle()
        finally:  # rows of earlier batches are kept, whatever has gone wrong with this one
            self._waiting.write()
            self._waiting_probes.write()

    def epoch(self, result: EpochResult) -> None:
        """Tell all of them."""
        for recorder in self._recorders:
            recorder.epoch(result)

    def end(self) -> None:
        """Tell all of them, also if one of them fails."""
        with ExitStack() as stack:
            for recorder in self._recorders:
                stack.callback(recorder.end)
            self.write_rows()

    @contextmanager
    def listening(self, n_epochs_done: int) -> Iterator[None]:
        """Let them listen to what happens inside, and end, however it ends."""
        try:
            self.begin(n_epochs_done)
            yield
        finally:
            self.end()
