"""Learn from the training data, look at the validation data, and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from finetune_lm.constants import SKIP
from finetune_lm.errors import UserError
from finetune_lm.evaluation.evaluate import (
    check_finite,
    evaluate,
    is_finite,
    n_labels,
    outputs_labels,
    record_batch,
)
from finetune_lm.evaluation.loss_units import loss_units
from finetune_lm.evaluation.memory import batch_watched
from finetune_lm.evaluation.splits import Split
from finetune_lm.loss_scale import loss_scaled_by
from finetune_lm.progress_bars import EpochBar
from finetune_lm.recording.columns import LOSS
from finetune_lm.runs.interruption import Interruption
from finetune_lm.scoring.scorer import Score
from finetune_lm.training.checkpoints import Checkpoints
from finetune_lm.training.learner import Learner
from finetune_lm.training.optimizer_modes import set_mode
from finetune_lm.training.progress import BEFORE_TRAINING
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import Update

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.data.batch import Batch


def train(
    learner: Learner,
    training: Split,
    validation: Split,
    args: DataTrainingArguments,
    state: TrainingState,
    interruption: Interruption,
    checkpoints: Checkpoints,
    *,
    on_epoch_end: Callable[[int, float], None] = lambda epoch, validation_loss: None,
    in_passing: bool = False,
) -> None:
    """Train until the epochs are over or patience is, keeping the state that validates best.

    Args:
        learner: What learns.
        training: What it learns from.
        validation: What it is judged by after each epoch.
        args: Epochs, shuffling, what to do about a loss that is not finite.
        state: Where the training is, and where rows, losses and the best weights go.
        interruption: Says at the end of each step whether to stop.
        checkpoints: Where the state is saved after epochs, and when a signal stops the run.
        on_epoch_end: Told each epoch and its validation loss, once they are taken in. What it
            raises ends the training.
        in_passing: Whether this is one of many trainings, whose progress is shown only on a
            terminal and wiped away at the end.

    Raises:
        UserError: If a loss is not finite, or nothing in the data counts in the loss.
        Interrupted: If a signal came, at the end of the step.
    """
    progress, stopping, callbacks = state.progress, state.stopping, learner.callbacks

    def stop_if_asked() -> None:
        interruption.check(before=lambda: checkpoints.write(state.capture()))

    def is_over() -> bool:
        return progress.epoch >= args.epochs or stopping.should_stop()

    def validate() -> dict[str, float]:
        return evaluate(
            learner.model,
            validation,
            state.table,
            state.history,
            epoch=progress.epoch,
            device=learner.accelerator.device,
            on_batch=stop_if_asked,
            callbacks=callbacks,
            progress=progress.validation,
            on_nan=args.on_nan,
        )

    if not progress.has_begun:
        callbacks.run("pre_training")
    unit = loss_units(args)[LOSS]
    n_done = max(progress.epoch, 0)
    with EpochBar(args.epochs, n_done, unit, in_passing=in_passing) as bar:
        if progress.epoch == BEFORE_TRAINING:
            validate()
            state.table.end_piece()
            progress.begin_epoch(0)
        while not is_over():
            if not progress.training.n_batches:
                callbacks.run("begin_epoch", progress.epoch)
            train_means = train_epoch(learner, training, args, state, stop_if_asked)
            validation_means = validate()
            state.table.end_piece()
            if learner.schedule is not None:
                learner.schedule.epoch_is_over(validation_means[LOSS])
            if stopping.update(progress.epoch, validation_means[LOSS]):
                state.best.keep()
            bar.epoch_is_over(
                progress.epoch,
                train_means,
                validation_means,
                (stopping.best_epoch, stopping.best_loss),
                stopping.patience_left,
            )
            callbacks.run("end_epoch", progress.epoch)
            on_epoch_end(progress.epoch, validation_means[LOSS])
            progress.begin_epoch(progress.epoch + 1)
            # At the end a smaller one is written instead.
            if not is_over() and checkpoints.is_due(progress.epoch):
                checkpoints.write(state.capture())
        callbacks.run("post_training")
        stop_if_asked()
    if stopping.best_epoch is None:
        raise UserError(
            "losses must be finite but no epoch had a validation loss that is finite, so none is "
            "the best. What was recorded is kept. A lower lr often helps."
        )


def train_epoch(
    learner: Learner,
    split: Split,
    args: DataTrainingArguments,
    state: TrainingState,
    after_step: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Learn from every training example once, or from those that are left of this epoch.

    The rows of a batch come from the forward pass that made its loss: before its update, with
    dropout if the model has it. What is left at the end of several batches that make an update
    makes one, too.

    Returns:
        The mean of each loss over the labels that count, or over what it is a mean over itself.

    Raises:
        UserError: If a loss is not finite and that is to stop the run, or no loss is.
    """
    epoch, progress = state.progress.epoch, state.progress.training
    if not state.progress.validation.n_batches:  # there and back would not be exact
        set_mode(learner.optimizer, learner.callbacks, learning=True)
    order = state.progress.order(len(split.dataset)) if args.shuffle_train else None
    update = Update(learner, args.gradient_accumulation_steps, args.max_grad_norm)
    is_whole = not progress.n_batches
    for number, batch in progress.batches(split, order):
        learner.callbacks.run("pre_train_batch", epoch, number)
        lr = learner.lr
        with batch_watched(split, batch, number, epoch):
            score, losses = learn(learner, split, batch, args, update, epoch, number)
            # Nothing is learned from a batch without losses, or with one that is left out.
            leads_to_step = losses is not None and is_finite(losses)
            record_batch(
                split,
                batch,
                score,
                losses,
                state.table,
                state.history,
                progress,
                epoch,
                number,
                lr if leads_to_step else None,
            )
        learner.callbacks.run("post_train_batch", epoch, number)
        # A run that is gone on with later has no gradients of earlier batches.
        if not update.is_under_way:
            after_step()
    if update.is_under_way:
        update.make(epoch)
        after_step()
    set_mode(learner.optimizer, learner.callbacks, learning=False)
    if is_whole:
        split.rows.warn_if_empty()
    if progress.n_not_finite and progress.means.is_empty:
        raise UserError(
            f"losses must be finite but in epoch {epoch} none of the {progress.n_not_finite} "
            f"training batches had such a loss, so nothing is learned any more. What was recorded "
            f"is kept. A lower lr often helps."
        )
    assert split.losses is not None
    means = progress.means.means(split.dataset.name, split.losses.reduced)
    state.history.end_epoch(split.dataset_type, epoch, means)
    return means


def learn(
    learner: Learner,
    split: Split,
    batch: Batch,
    args: DataTrainingArguments,
    update: Update,
    epoch: int,
    number: int,
) -> tuple[Score, dict[str, float] | None]:
    """From a batch to its losses and gradients, and to the update if they are the last for it.

    From a batch with nothing to predict, such as one in which no word was found to mask, nothing is
    learned; nor from one whose loss is not finite, if such are to be skipped.

    Returns:
        What tells what tokens cost, and the losses; None where nothing is to be predicted.
    """
    import torch

    assert split.losses is not None
    device = learner.accelerator.device
    n_counted = n_labels(split.dataset, batch)
    if not learner.model.training:
        learner.model.train()
    if not n_counted:
        with torch.no_grad():
            return split.forward(batch, device).score, None
    outputs = split.forward(batch, device)
    # Before the losses, which may change the logits.
    score = split.rows.scored(batch, outputs.score)
    with loss_scaled_by(learner.accelerator.scaler):
        loss = split.losses(outputs.for_losses, outputs_labels(batch, device))
    losses = loss.numbers()
    if args.on_nan == SKIP and not is_finite(losses):
        return score, losses
    check_finite(losses, split, batch, epoch, number)

    if not loss.total.requires_grad:
        raise UserError(
            "a training loss must depend on the model, but no gradient comes of "
            f"{', '.join(split.losses.names)} as they are reduced."
        )
    update.add(loss.total, n_counted, epoch, number)
    return score, losses
