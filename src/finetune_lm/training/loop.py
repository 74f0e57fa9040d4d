"""Learn from the training data, look at the validation data, and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finetune_lm.constants import SKIP
from finetune_lm.errors import UserError
from finetune_lm.evaluation.batch_errors import losses_not_finite
from finetune_lm.evaluation.evaluate import evaluate, over_modes
from finetune_lm.evaluation.passes import batch_watched, measure_batch, record
from finetune_lm.evaluation.splits import Split, TrainingSplits
from finetune_lm.loss_scale import loss_scaled_by
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.recorder import BatchAt, EpochResult, Measured, named_in_mode
from finetune_lm.runs.context import Run
from finetune_lm.training.divided_updates import dividing_updates
from finetune_lm.training.early_stopping import judged_by
from finetune_lm.training.optimizer_modes import set_mode
from finetune_lm.training.probing import Probing
from finetune_lm.training.progress import BEFORE_TRAINING
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import Learner, Update

if TYPE_CHECKING:
    from torch import Tensor


def train(run: Run, learner: Learner, splits: TrainingSplits, state: TrainingState) -> None:
    """Train until the epochs are over or patience is, keeping the state that validates best.

    Nothing is left to do for a training that an earlier process has come to the end of.

    Args:
        run: What is run, with those who listen.
        learner: What learns.
        splits: What it learns from, what it is judged by after each epoch, and the probes.
        state: Where the training is, and where the best weights go.

    Raises:
        UserError: If a loss is not finite, or nothing in the data counts in the loss.
        Interrupted: If a signal came, at the end of the step.
    """
    args, progress, stopping, callbacks = run.args, state.progress, state.stopping, run.callbacks

    def save() -> None:
        run.recorders.write_rows()
        run.checkpoints.write(state.capture())

    def stop_if_asked() -> None:
        run.interruption.check(before=save)

    def is_over() -> bool:
        return progress.epoch >= args.epochs or stopping.should_stop()

    def after_step() -> None:
        if splits.probes:
            probing.after_step()
        stop_if_asked()

    run.so_far.count_updates(lambda: progress.n_updates)
    if state.is_over:
        return
    probing = Probing(run, learner, splits.probes, progress, stop_if_asked)
    if not progress.has_begun:
        callbacks.run("pre_training")
    probing.before_training()
    if progress.epoch == BEFORE_TRAINING:
        for split in progress.validation.left(splits.validation):
            evaluate(run, split, progress.epoch, progress.validation, stop_if_asked)
        progress.begin_epoch(0)
    with dividing_updates(args, learner) as learner:
        while not is_over():
            if not progress.training.n_batches:
                callbacks.run("begin_epoch", progress.epoch)
            probing.after_step()  # if that is what the run was stopped in
            with loss_scaled_by(learner.accelerator.scaler):
                learned = train_epoch(run, learner, splits.train, state, after_step)
            for split in progress.validation.left(splits.validation):
                evaluate(run, split, progress.epoch, progress.validation, stop_if_asked)
            found = progress.validation.found
            validation_means = over_modes(found, splits.selecting)
            probing.after_epoch()
            if learner.schedule is not None:
                learner.schedule.epoch_is_over(validation_means[LOSS])
            judged = judged_by(args.select_by, validation_means)
            is_best = stopping.update(progress.epoch, validation_means[LOSS], judged)
            if is_best and state.best is not None:
                state.best.keep()
            callbacks.run("end_epoch", progress.epoch)
            by_mode = {} if None in found else _named(train=learned, validation=found)
            means = learned.get(None, {}), validation_means
            left, lr = stopping.patience_left, progress.training.lr
            run.recorders.epoch(
                EpochResult(
                    progress.epoch, *means, stopping.best, left, lr, args.select_by, by_mode
                )
            )
            progress.begin_epoch(progress.epoch + 1)
            # At the end a smaller one is written instead.
            if not is_over() and run.world.decided(run.checkpoints.is_due, progress.epoch):
                save()
        callbacks.run("post_training")
        stop_if_asked()  # while the optimizer still has what a checkpoint keeps of it
    if stopping.best_epoch is None:
        raise UserError(
            "losses must be finite but no epoch had a finite validation loss, so there is no "
            "best epoch. What was recorded is kept. A lower lr often helps."
        )


def _named(**found: Mapping[str | None, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """What data came to in several modes, by names that tell both."""
    return {
        named_in_mode(name, mode): means
        for name, by_mode in found.items()
        for mode, means in by_mode.items()
    }


def train_epoch(
    run: Run,
    learner: Learner,
    splits: Mapping[str | None, Split],
    state: TrainingState,
    after_step: Callable[[], object],
) -> dict[str | None, dict[str, float]]:
    """Learn from every training example once, or from those that are left of this epoch.

    The rows of a batch come from the forward pass that made its loss: before its update, with
    dropout if the model has it. What is left at the end of several batches that make an update
    makes one, too. A model that has two modes learns from each batch in the one that callbacks have
    set by then.

    Returns:
        In each mode that was learned in, the mean of each loss over the labels that count, or over
        what it is a mean over itself.

    Raises:
        UserError: If a loss is not finite and that is to stop the run, or no loss is.
    """
    args, epoch, progress = run.args, state.progress.epoch, state.progress.training
    if not state.progress.validation.has_begun:  # there and back would not be exact
        set_mode(learner.optimizer, run.callbacks, learning=True)
    first = next(iter(splits.values()))
    n = len(first.dataset)
    order = state.progress.order(n) if args.shuffle_train else np.arange(n)
    update = Update(learner, args.gradient_accumulation_steps, args.max_grad_norm)
    n_updates = state.progress.n_updates
    run.so_far.count_updates(lambda: n_updates + update.n_done)
    is_whole = not progress.n_batches
    has_two = len(splits) > 1
    told = -1

    def before_batch(number: int) -> None:
        nonlocal told
        if number != told:
            run.so_far.latest = None
            run.callbacks.run("pre_train_batch", epoch, number)
            told = number

    def split_of(number: int) -> Split:
        if not has_two:
            return first
        # Callbacks set the mode before the batch is made, even if preprocessing leaves nothing of
        # it; the next one then has its number.
        before_batch(number)
        return splits[run.so_far.mode]

    for number, split, batch in progress.batches(split_of, order, epoch):
        before_batch(number)
        at = BatchAt(split, batch, epoch, number)
        with batch_watched(at):
            if not split.forward.model.training:
                split.forward.model.train()
            # By the learning rate before the update that this batch may lead to.
            measured = learn(run, measure_batch(run, at, lr=learner.lr), update)
            record(run, measured, progress)
        run.callbacks.run("post_train_batch", epoch, number)
        state.progress.n_updates = n_updates + update.n_done
        # A run that is gone on with later has no gradients of earlier batches.
        if not update.is_under_way:
            after_step()
    if update.is_under_way:
        update.make(epoch)
        state.progress.n_updates = n_updates + update.n_done
        after_step()
    run.recorders.settle()
    set_mode(learner.optimizer, run.callbacks, learning=False)
    learned = [s for s in splits.values() if s.mode in progress.losses] or [*splits.values()]
    if is_whole:
        for split in learned:
            split.warn_if_empty()
    means = {}
    for split in learned:
        if progress.losses_of(split).n_not_finite and progress.losses_of(split).is_empty:
            continue
        means[split.mode] = progress.means_of(split)
        run.recorders.pass_over(split.dataset_type, epoch, means[split.mode], split.mode)
    if not means:
        raise UserError(
            f"losses must be finite but in epoch {epoch} none of the {progress.n_not_finite} "
            "training batches had a finite loss, so the model cannot learn. What was recorded is "
            "kept. A lower lr often helps."
        )
    return means


def learn(run: Run, found: tuple[Measured, Tensor | None], update: Update) -> Measured:
    """From the losses of a batch to gradients, and to the update if they are the last for it.

    From a batch with nothing to predict, such as one in which no word was found to mask, nothing is
    learned; nor from one whose loss is not finite, if such are to be skipped.

    Args:
        run: What is run.
        found: What `measure_batch` has returned for the batch.
        update: Collects the gradients.

    Returns:
        What came of the batch.
    """
    measured, loss = found
    if measured.losses is None:
        return measured
    if run.waits_for_numbers and not measured.is_finite:
        if run.args.on_nan == SKIP:
            return replace(measured, lr=None)
        raise losses_not_finite(measured)
    if run.so_far.is_asked_for:
        run.so_far.latest = measured  # for callbacks at its step
    update.add(loss, measured.n_labels, measured.epoch, measured.number)
    return measured
