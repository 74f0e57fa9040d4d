"""Learn from the training data, look at the validation data, and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from finetune_lm.errors import UserError
from finetune_lm.evaluation.evaluate import (
    check_finite,
    evaluate,
    forward,
    n_labels,
    outputs_labels,
    record_batch,
)
from finetune_lm.evaluation.losses import EpochLosses
from finetune_lm.evaluation.splits import Split
from finetune_lm.interruption import Interruption
from finetune_lm.results.columns import LOSS
from finetune_lm.results.loss_history import LossHistory
from finetune_lm.results.tables import TableWriter
from finetune_lm.training.best_state import BestState
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.learner import Learner

if TYPE_CHECKING:
    import torch

    from finetune_lm.arguments import DataTrainingArguments

BEFORE_TRAINING = -1
"""The epoch of rows that were measured before anything was learned."""


def train(
    learner: Learner,
    training: Split,
    validation: Split,
    args: DataTrainingArguments,
    table: TableWriter,
    history: LossHistory,
    stopping: EarlyStopping,
    best: BestState,
    *,
    on_epoch_end: Callable[[int, float], None] = lambda epoch, validation_loss: None,
    in_passing: bool = False,
) -> None:
    """Train until the epochs are over or patience is, keeping the state that validates best.

    Args:
        learner: What learns.
        training: What it learns from.
        validation: What it is judged by after each epoch.
        args: Epochs, shuffling, seed.
        table: Where rows go, one piece an epoch.
        history: Where losses go.
        stopping: Judges the validation losses.
        best: Keeps the best weights.
        on_epoch_end: Told each epoch and its validation loss, once they are taken in. What it
            raises ends the training.
        in_passing: Whether this is one of many trainings, whose progress is shown only on a
            terminal and wiped away at the end.

    Raises:
        UserError: If a loss is not finite, or nothing in the data counts in the loss.
        Interrupted: If a signal came, at the end of the step.
    """
    import torch

    generator = torch.Generator().manual_seed(args.seed)
    device = learner.accelerator.device

    def validate(epoch: int) -> dict[str, float]:
        return evaluate(
            learner.model,
            validation,
            table,
            history,
            epoch=epoch,
            device=device,
            on_batch=interruption.check,
        )

    with (
        Interruption() as interruption,
        tqdm(
            range(args.epochs),
            desc="training",
            unit="epoch",
            dynamic_ncols=True,
            leave=not in_passing,
            disable=None if in_passing else False,
        ) as epochs,
    ):
        if args.eval_before_training:
            validate(BEFORE_TRAINING)
            table.end_piece()
        for epoch in epochs:
            train_means = train_epoch(
                learner, training, args, table, history, epoch, generator, interruption
            )
            validation_means = validate(epoch)
            table.end_piece()
            if stopping.update(epoch, validation_means[LOSS]):
                best.keep()
            epochs.set_postfix_str(_progress(train_means, validation_means, stopping))
            on_epoch_end(epoch, validation_means[LOSS])
            if stopping.should_stop():
                break


def train_epoch(
    learner: Learner,
    split: Split,
    args: DataTrainingArguments,
    table: TableWriter,
    history: LossHistory,
    epoch: int,
    generator: torch.Generator,
    interruption: Interruption,
) -> dict[str, float]:
    """Learn from every training example once.

    The rows of a batch come from the forward pass that made its loss: before its update, with
    dropout if the model has it. From a batch with nothing to predict, such as one in which no word
    was found to mask, nothing is learned.

    Returns:
        The mean of each loss over the labels that count.
    """
    import torch

    assert split.losses is not None
    device = learner.accelerator.device
    order = (
        torch.randperm(len(split.dataset), generator=generator).numpy()
        if args.shuffle_train
        else None
    )
    means = EpochLosses()
    for number, batch in enumerate(split.dataset.batches(split.batch_size, order)):
        learner.model.train()
        if not n_labels(split.dataset, batch):
            with torch.no_grad():
                outputs = forward(learner.model, batch, device)
            record_batch(split, batch, outputs, None, table, history, means, epoch, number)
            continue
        outputs = forward(learner.model, batch, device)
        loss = split.losses(outputs, outputs_labels(batch, device))
        losses = loss.numbers()
        check_finite(losses, split.dataset_type, epoch, number)

        if not loss.total.requires_grad:
            raise UserError(
                "a training loss must depend on the model, but no gradient comes of "
                f"{', '.join(split.losses.names)} as they are reduced."
            )
        learner.accelerator.backward(loss.total)
        for callback in learner.callbacks:
            callback(epoch, number)
        learner.optimizer.step()
        learner.optimizer.zero_grad()

        record_batch(split, batch, outputs, losses, table, history, means, epoch, number)
        interruption.check()
    split.rows.warn_if_empty()
    return means.means(split.dataset.name)


def _progress(
    train_means: dict[str, float], validation_means: dict[str, float], stopping: EarlyStopping
) -> str:
    """What the bar says behind the epochs: losses, the best epoch, patience left."""
    several = len(train_means) > 2 or len(validation_means) > 2

    def told(means: dict[str, float]) -> str:
        parts = [f"{name} {v:.3f}" for name, v in means.items() if name != LOSS and several]
        return f"{means[LOSS]:.3f}" + (f" ({', '.join(parts)})" if parts else "")

    words = [f"train {told(train_means)}", f"validation {told(validation_means)}"]
    words.append(f"best epoch {stopping.best_epoch} ({stopping.best_loss:.3f})")
    if stopping.patience_left is not None:
        words.append(f"patience {stopping.patience_left}")
    return ", ".join(words)
