"""One pass over a data set with a model that does not learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.constants import STOP
from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.errors import UserError
from finetune_lm.evaluation.memory import batch_watched
from finetune_lm.evaluation.passes import Pass
from finetune_lm.evaluation.splits import Split
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.tables import TableWriter
from finetune_lm.scoring.scorer import Score

if TYPE_CHECKING:
    import torch


def evaluate(
    model: Any,
    split: Split,
    table: TableWriter,
    history: LossHistory,
    *,
    epoch: int,
    device: torch.device,
    on_batch: Callable[[], object] = lambda: None,
    callbacks: Callbacks | None = None,
    progress: Pass | None = None,
    on_nan: str = STOP,
) -> dict[str, float]:
    """Record what every token of a data set costs, and the losses.

    The model is in eval mode meanwhile; no graph is built. A batch with nothing to predict, such as
    one in which no word was found to mask, is left out.

    Args:
        model: The model.
        split: The data, with its losses.
        table: Where rows go.
        history: Where the batches' losses go.
        epoch: The epoch after whose updates this is.
        device: Where the model is.
        on_batch: Called after each batch.
        callbacks: Act before and after each batch, and before the first.
        progress: How far this has come, if it is not at its beginning.
        on_nan: What to do about a loss that is not finite: ``stop``, or ``skip``, which makes the
            means no numbers.

    Returns:
        The mean of each loss over the labels that count, or over what it is a mean over itself.

    Raises:
        UserError: If a loss is not finite and that is to stop the run, or no label counts.
    """
    import torch

    assert split.losses is not None
    callbacks = callbacks or Callbacks()
    progress = Pass() if progress is None else progress
    is_whole = not progress.n_batches
    if is_whole:
        split.losses.rewind()
        callbacks.run("pre_validation", epoch)
    model.eval()
    split.forward.forget()
    # A callback may change the model from batch to batch.
    alone = callbacks.act_at("pre_validation_batch", "post_validation_batch")
    with torch.no_grad():
        for number, batch in progress.batches(split):
            callbacks.run("pre_validation_batch", epoch, number)
            _back_to_eval(model)
            with batch_watched(split, batch, number, epoch):
                outputs = split.forward(batch, device, alone=alone)
                score = split.rows.scored(batch, outputs.score)
                losses = None
                if n_labels(split.dataset, batch):
                    labels = outputs_labels(batch, device)
                    losses = split.losses(outputs.for_losses, labels).numbers()
                    if on_nan == STOP:
                        check_finite(losses, split, batch, epoch, number)
                record_batch(split, batch, score, losses, table, history, progress, epoch, number)
            callbacks.run("post_validation_batch", epoch, number)
            on_batch()
    if is_whole:
        split.rows.warn_if_empty()
    if progress.n_not_finite:
        # A mean over the other batches could not be compared with that of another epoch.
        means = dict.fromkeys([LOSS, *split.losses.names], math.nan)
    else:
        means = progress.means.means(split.dataset.name, split.losses.reduced)
    history.end_epoch(split.dataset_type, epoch, means)
    return means


def record_batch(
    split: Split,
    batch: Batch,
    score: Score,
    losses: Mapping[str, float] | None,
    table: TableWriter,
    history: LossHistory,
    progress: Pass,
    epoch: int,
    number: int,
    lr: float | None = None,
) -> None:
    """Write the rows of a batch, and take its losses in, unless one is no finite number.

    Args:
        split: The data that the batch is of.
        batch: The batch.
        score: Tells what its tokens cost, as they did before the losses saw the outputs.
        losses: Its losses; None where nothing is to be predicted, so that there are none.
        table: Where rows go.
        history: Where the batches' losses go.
        progress: The pass of which the batch is, where losses are averaged.
        epoch: The epoch.
        number: The batch's number in it.
        lr: The learning rate of the step that it leads to; None if it leads to none.
    """
    table.write(
        split.rows.of_batch(batch, score, epoch=epoch, batch_number=number, losses=losses, lr=lr)
    )
    if losses is None:
        return
    if not is_finite(losses):
        progress.n_not_finite += 1
        return
    assert split.losses is not None
    progress.means.add(losses, n_labels(split.dataset, batch), split.losses.epoch_weights())
    history.add(split.dataset_type, epoch, number, losses)


def record_surprisals(
    model: Any,
    split: Split,
    write: Callable[[int, Any], None],
    *,
    epoch: int | None,
    device: torch.device,
    skip: int = 0,
    on_batch: Callable[[], object] = lambda: None,
    callbacks: Callbacks | None = None,
    on_nan: str = STOP,
) -> None:
    """Record what every token of a test set costs.

    Args:
        model: The model; it is put into eval mode.
        split: The data.
        write: Called with each batch's number and rows.
        epoch: The epoch whose model this is; None if it was not trained.
        device: Where the model is.
        skip: How many batches are recorded already.
        on_batch: Called after each batch of the data set.
        callbacks: Act before and after each batch that is fed to the model.
        on_nan: What to do about a surprisal that is not finite: ``stop``, or ``skip``, which leaves
            it in its row.

    Raises:
        UserError: If a surprisal is not finite and that is to stop the run.

    Preprocessing may make many examples of one. They go to the model, and are numbered, in batches
    of the size that the split says.
    """
    import torch

    callbacks = callbacks or Callbacks()
    model.eval()
    split.forward.forget()
    alone = callbacks.act_at("pre_test_batch", "post_test_batch")
    with torch.no_grad():
        for number, batch in enumerate(split.dataset.batches(split.batch_size, bounded=True)):
            # A skipped batch is still put together, so that random masks come out as they would.
            if number >= skip:
                callbacks.run("pre_test_batch", epoch, number)
                _back_to_eval(model)
                with batch_watched(split, batch, number, epoch):
                    outputs = split.forward(batch, device, alone=alone)
                    rows = split.rows.of_batch(
                        batch, outputs.score, epoch=epoch, batch_number=number
                    )
                if on_nan == STOP:
                    _check_surprisals(rows, split)
                write(number, rows)
                callbacks.run("post_test_batch", epoch, number)
            if batch.is_last_part:
                on_batch()
    if not skip:
        split.rows.warn_if_empty()


def _check_surprisals(rows: pa.Table, split: Split) -> None:
    """Stop a test whose model finds no numbers.

    Raises:
        UserError: If a surprisal is infinite or not a number, with its example.
    """
    spoiled = rows.filter(pc.invert(pc.is_finite(rows["surprisal"])))  # missing ones are left out
    if len(spoiled):
        first = {name: spoiled[name][0].as_py() for name in ("surprisal", "token", "example_num")}
        raise UserError(
            f"surprisals must be finite but that of {first['token']!r} in example_num "
            f"{first['example_num']} of {split.dataset.path} is {first['surprisal']}. A model in "
            f"half precision may need more, or has gone wrong in training; --on_nan skip leaves "
            f"such surprisals in the table."
        )


def _back_to_eval(model: Any) -> None:
    """A callback may have put the model into training mode and left it there."""
    if model.training:
        model.eval()


def outputs_labels(batch: Batch, device: torch.device) -> Any:
    """The labels that losses are given."""
    # A copy: the rows of the batch need them as they are, whatever a loss does to its own.
    return batch.inputs["labels"].to(device, copy=True)


def n_labels(dataset: Dataset, batch: Batch) -> int:
    """How many labels of a batch count in its loss."""
    return int(dataset.task.counted(batch.inputs["labels"]).sum())


def is_finite(losses: Mapping[str, float]) -> bool:
    """Whether no loss is infinite or not a number."""
    return all(map(math.isfinite, losses.values()))


def check_finite(
    losses: Mapping[str, float], split: Split, batch: Batch, epoch: int, batch_number: int
) -> None:
    """Stop a run that has gone wrong, before it learns from what is no number.

    Raises:
        UserError: If a loss is infinite or not a number, with the examples of the batch.
    """
    if is_finite(losses):
        return
    values = ", ".join(f"{name} {value}" for name, value in losses.items())
    raise UserError(
        f"losses must be finite but in epoch {epoch}, {split.dataset_type} batch {batch_number}, "
        f"came {values}. In it {_examples_named(split.dataset, batch)}. What was recorded before "
        f"is kept. A lower lr often helps; --on_nan skip leaves such steps out."
    )


_NAMED = 64


def _examples_named(dataset: Dataset, batch: Batch) -> str:
    """The examples of a batch by number and file, as a clause."""
    numbers = [str(dataset.example_nums[i]) for i in dict.fromkeys(batch.example.tolist())]
    if len(numbers) == 1:
        return f"is example_num {numbers[0]} of {dataset.path}"
    shown = ", ".join(numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"are example_num {shown}{more} of {dataset.path}"
