"""One pass over a data set with a model that does not learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.errors import UserError
from finetune_lm.evaluation.forward import Outputs
from finetune_lm.evaluation.losses import EpochLosses
from finetune_lm.evaluation.splits import Split
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.results.loss_history import LossHistory
from finetune_lm.results.tables import TableWriter

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

    Returns:
        The mean of each loss over the labels that count.

    Raises:
        UserError: If a loss is not finite, or no label counts.
    """
    import torch

    assert split.losses is not None
    callbacks = callbacks or Callbacks()
    means = EpochLosses()
    callbacks.run("pre_validation", epoch)
    model.eval()
    split.forward.forget()
    # A callback may change the model from batch to batch.
    alone = callbacks.act_at("pre_validation_batch", "post_validation_batch")
    with torch.no_grad():
        for number, batch in enumerate(split.dataset.batches(split.batch_size)):
            callbacks.run("pre_validation_batch", epoch, number)
            _back_to_eval(model)
            outputs = split.forward(batch, device, alone=alone)
            losses = None
            if n_labels(split.dataset, batch):
                losses = split.losses(outputs.for_losses, outputs_labels(batch, device)).numbers()
                check_finite(losses, split.dataset_type, epoch, number)
            record_batch(split, batch, outputs, losses, table, history, means, epoch, number)
            callbacks.run("post_validation_batch", epoch, number)
            on_batch()
    split.rows.warn_if_empty()
    return means.means(split.dataset.name)


def record_batch(
    split: Split,
    batch: Batch,
    outputs: Outputs,
    losses: Mapping[str, float] | None,
    table: TableWriter,
    history: LossHistory,
    means: EpochLosses,
    epoch: int,
    number: int,
) -> None:
    """Write the rows of a batch, and take its losses in.

    Args:
        split: The data that the batch is of.
        batch: The batch.
        outputs: What the model returned for it.
        losses: Its losses; None where nothing is to be predicted, so that there are none.
        table: Where rows go.
        history: Where the batches' losses go.
        means: Where they are averaged.
        epoch: The epoch.
        number: The batch's number in it.
    """
    table.write(
        split.rows.of_batch(batch, outputs.score, epoch=epoch, batch_number=number, losses=losses)
    )
    if losses is not None:
        n_counted = n_labels(split.dataset, batch)
        means.add(losses, n_counted)
        history.add(split.dataset_type, epoch, losses, n_counted)


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
                outputs = split.forward(batch, device, alone=alone)
                rows = split.rows.of_batch(batch, outputs.score, epoch=epoch, batch_number=number)
                write(number, rows)
                callbacks.run("post_test_batch", epoch, number)
            if batch.is_last_part:
                on_batch()
    if not skip:
        split.rows.warn_if_empty()


def _back_to_eval(model: Any) -> None:
    """A callback may have put the model into training mode and left it there."""
    if model.training:
        model.eval()


def outputs_labels(batch: Batch, device: torch.device) -> Any:
    """The labels that losses are given."""
    return batch.inputs["labels"].to(device)


def n_labels(dataset: Dataset, batch: Batch) -> int:
    """How many labels of a batch count in its loss."""
    return int(dataset.task.counted(batch.inputs["labels"]).sum())


def check_finite(
    losses: Mapping[str, float], dataset_type: str, epoch: int, batch_number: int
) -> None:
    """Stop a run that has gone wrong, before it learns from what is no number.

    Raises:
        UserError: If a loss is infinite or not a number.
    """
    if all(math.isfinite(value) for value in losses.values()):
        return
    values = ", ".join(f"{name} {value}" for name, value in losses.items())
    raise UserError(
        f"losses must be finite but in epoch {epoch}, {dataset_type} batch {batch_number}, came "
        f"{values}. What was recorded before is kept. A lower lr often helps."
    )
