"""One pass over a data set with a model that does not learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_lm.constants import STOP
from finetune_lm.evaluation.batch_errors import check_surprisals
from finetune_lm.evaluation.passes import Pass, batch_watched, measure_batch, record
from finetune_lm.evaluation.splits import Split
from finetune_lm.randomness import drawn_apart
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.recorder import BatchAt, Measured
from finetune_lm.recording.waiting_rows import WaitingRows
from finetune_lm.runs.context import Run


def over_modes(
    found: Mapping[str | None, Mapping[str, float]], modes: Sequence[str | None]
) -> dict[str, float]:
    """The mean over modes of what data came to in each, by column."""
    parts = [found[mode] for mode in modes]
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


def evaluate(
    run: Run, split: Split, epoch: int, progress: Pass, on_batch: Callable[[], object]
) -> None:
    """Record what every token of a data set costs, and the losses.

    What it comes to is in ``progress.found`` then: the mean of each loss over the labels that
    count, or over what it is a mean over itself; and how well the model does on pairs, if it is
    judged by them.

    The model is in eval mode meanwhile; no graph is built. A batch with nothing to predict, such as
    one in which no word was found to mask, is left out. With ``on_nan skip`` a loss that is not
    finite makes the means no numbers.

    Args:
        run: What is run.
        split: The data, with its losses.
        epoch: The epoch after whose updates this is.
        progress: How far this has come.
        on_batch: Called after each batch.

    Raises:
        UserError: If a loss is not finite and that is to stop the run, or no label counts.
    """
    import torch

    assert split.losses is not None
    model, callbacks = split.forward.model, run.callbacks
    is_whole = not progress.n_batches
    if is_whole:
        split.losses.rewind()
        callbacks.run("pre_validation", epoch)
    model.eval()
    split.forward.forget()
    # A callback may change the model from batch to batch.
    alone = callbacks.act_at("pre_validation_batch", "post_validation_batch")
    with torch.no_grad():
        order = np.arange(len(split.dataset))
        for number, _, batch in progress.batches(lambda _: split, order, epoch):
            run.so_far.latest = None
            callbacks.run("pre_validation_batch", epoch, number)
            _back_to_eval(model)
            at = BatchAt(split, batch, epoch, number)
            with batch_watched(at):
                measured, _ = measure_batch(run, at, alone=alone)
                record(run, measured, progress)
            callbacks.run("post_validation_batch", epoch, number)
            on_batch()
    run.recorders.settle()
    if is_whole:
        split.warn_if_empty()
    if progress.losses_of(split).n_not_finite:
        # A mean over the other batches could not be compared with that of another epoch.
        means = dict.fromkeys([LOSS, *split.losses.names], math.nan)
    else:
        means = progress.means_of(split)
    run.recorders.pass_over(split.dataset_type, epoch, means, split.mode)
    if split.pairs is not None:
        means = {**means, **run.world.decided(split.pairs.of_costs, progress.costs)}
    progress.found[split.mode] = means


def record_surprisals(
    run: Run,
    split: Split,
    epoch: int | None,
    rows: WaitingRows,
    *,
    skip: int = 0,
) -> Iterator[None]:
    """Record what every token of a test set costs.

    Preprocessing may make many examples of one. They go to the model, and are numbered, in batches
    of the size that the split says. With ``on_nan skip`` a surprisal that is not finite is left in
    its row.

    Args:
        run: What is run. The model is put into eval mode.
        split: The data.
        epoch: The epoch whose model this is; None if it was not trained.
        rows: Is given each batch. None of them waits in the end.
        skip: How many batches are recorded already.

    Yields:
        Nothing, after each batch of the data set.

    Raises:
        UserError: If a surprisal is not finite and that is to stop the run.
    """
    import torch

    model, callbacks = split.forward.model, run.callbacks
    model.eval()
    split.forward.forget()
    alone = callbacks.act_at("pre_test_batch", "post_test_batch")
    batches = split.dataset.batches(split.batch_size, bounded=True)
    if split.own_seed is not None:
        batches = drawn_apart(split.own_seed, batches)
    for number, batch in enumerate(batches):
        # A skipped batch is still put together, so that random masks come out as they would.
        if number >= skip:
            with torch.no_grad():
                run.so_far.latest = None
                callbacks.run("pre_test_batch", epoch, number)
                _back_to_eval(model)
                at = BatchAt(split, batch, epoch, number)
                measured = measured_surprisals(run, at, alone=alone)
                with batch_watched(at):
                    rows.add(measured)
                if run.so_far.is_asked_for:
                    run.so_far.latest = measured
                callbacks.run("post_test_batch", epoch, number)
        if batch.is_last_part:
            yield
    run.so_far.latest = None
    rows.write()
    if not skip:
        split.warn_if_empty()


def measured_surprisals(run: Run, at: BatchAt, *, alone: bool = False) -> Measured:
    """What every token of a batch costs.

    Args:
        run: What is run. The model is in eval mode.
        at: The batch.
        alone: As of `scoring.forward.Forward`.

    Raises:
        UserError: If a surprisal is not finite and that is to stop the run.
    """
    import torch

    with torch.no_grad(), batch_watched(at):
        measured, _ = measure_batch(run, at, alone=alone)
    if run.args.on_nan == STOP:
        check_surprisals(measured)
    return measured


def _back_to_eval(model: Any) -> None:
    """A callback may have put the model into training mode and left it there."""
    if model.training:
        model.eval()
