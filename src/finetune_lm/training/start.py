"""Where a training begins: at its beginning, or where an earlier process has left it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError
from finetune_lm.evaluation.splits import Split
from finetune_lm.messages import say
from finetune_lm.recording.columns import table_columns
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.runs.directory import METRICS
from finetune_lm.training.best_state import BestState
from finetune_lm.training.checkpoints import BEGINNING, TRAINED, Checkpoints, Saved
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.learner import Learner
from finetune_lm.training.progress import BEFORE_TRAINING, Progress
from finetune_lm.training.state import (
    TrainingState,
    check_fingerprints,
    fingerprints_of,
    parts_with_state,
)

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.models.loading import LoadedModel


def begin_training(
    learner: Learner,
    loaded: LoadedModel,
    splits: tuple[Split, Split],
    args: DataTrainingArguments,
    output_dir: Path,
    checkpoints: Checkpoints,
    resumes: bool,
) -> TrainingState:
    """The state in which a training begins.

    Args:
        learner: What learns.
        loaded: The model.
        splits: The training and the validation data.
        args: Epochs, patience, seed.
        output_dir: Where the table is.
        checkpoints: Where an earlier process has left its state.
        resumes: Whether to go on from there.

    Raises:
        UserError: If that is not possible.
    """
    training, _ = splits
    path = output_dir / METRICS
    stopping = EarlyStopping(args.patience, args.delta, args.min_epochs)
    if not resumes:
        checkpoints.remove()
    saved = _newest(checkpoints, path, output_dir) if resumes else None
    if saved is not None:
        check_fingerprints(saved.state["origin"], *splits)
        _check_epochs(saved, stopping, args)
    columns = table_columns(
        with_sequence_type=loaded.task.reports_greedy_rows,
        losses=training.rows.run.losses,
        metadata=training.rows.run.metadata.names,
    )
    state = TrainingState(
        model=loaded.model,
        device=learner.accelerator.device,
        table=TableWriter(path, columns, _table_state(saved)),
        history=LossHistory(),
        stopping=stopping,
        best=BestState(loaded.model),
        progress=Progress(args.seed, BEFORE_TRAINING if args.eval_before_training else 0),
        parts=parts_with_state(learner, *splits),
        origin=fingerprints_of(*splits),
    )
    if saved is not None:
        state.restore(saved)
        say(f"Going on with the run in {output_dir} from {saved.position}.")
    elif checkpoints.are_kept:
        checkpoints.write(state.capture_origin())
    return state


def _newest(checkpoints: Checkpoints, path: Path, output_dir: Path) -> Saved | None:
    """The last checkpoint; None if the run was stopped before it had measured anything."""
    saved = checkpoints.newest()
    if saved is None and path.exists() and path.stat().st_size:
        raise UserError(
            f"a run is resumed from a checkpoint but {output_dir} has none. {path} stays as it is. "
            f"To do the run again: --config {output_dir}/config.yaml --output_dir ANOTHER"
        )
    return saved


def _check_epochs(saved: Saved, stopping: EarlyStopping, args: DataTrainingArguments) -> None:
    """See that a training that is over is not to go on, for which its last weights are missing."""
    if saved.kind != TRAINED:
        return
    stopping.load_state_dict(saved.state["stopping"])
    if stopping.n_epochs < args.epochs and not stopping.should_stop():
        raise UserError(
            f"epochs and patience cannot be raised any more: the training is over, after "
            f"{stopping.n_epochs} epochs, and its last weights are not kept. Start another run."
        )


def _table_state(saved: Saved | None) -> TableState | None:
    """How far the table had come, if there was one."""
    if saved is None:
        return None
    return TableState() if saved.kind == BEGINNING else TableState(**saved.state["table"])
