"""One run from start to end: plan, load, train, test.

A line of text: `read_files` reads it, `Dataset` turns it into tensors, `Forward` calls the model
with a batch of them, `TokenRows.of_batches` makes rows of many, `TableWriter.write` writes them.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.arguments import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.arguments.redaction import hides_secrets
from finetune_lm.data.reading_examples import reading_once
from finetune_lm.full_collections import passing_over_packages
from finetune_lm.ranks import world
from finetune_lm.runs.directory import CHECKPOINTS
from finetune_lm.runs.earlier_run import EarlierRun, earlier_in
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import claimed
from finetune_lm.runs.one_process import check_arguments
from finetune_lm.runs.run_identity import AllArguments
from finetune_lm.runs.run_plan import make_plan
from finetune_lm.runs.run_result import RunResult
from finetune_lm.series.members import is_series
from finetune_lm.series.testing_series import run_series
from finetune_lm.several_ranks import joined
from finetune_lm.streams import lossy_streams

if TYPE_CHECKING:
    from finetune_lm.runs.pack import Pack
    from finetune_lm.study.results import StudyResult


def run(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments | None = None,
) -> RunResult:
    """Fine-tune a model, test it, or both, as the arguments say.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: Which data, how the model learns, what is recorded.
        optimization_args: Whether to do a study of many runs instead (``do_optimize``), and how.

    Returns:
        The tables, the best loss and the output directory; after a study a `StudyResult`.

    Raises:
        UserError: If something is wrong that the user can put right. Nothing is written if that
            shows before the first step.

    Example:
        >>> result = run(
        ...     ModelArguments("tiny-lm"),
        ...     DataTrainingArguments(train_file="a.txt.gz", validation_file="b.txt.gz", epochs=5),
        ... )  # doctest: +SKIP
        >>> result.metrics.groupby(["dataset_type", "epoch"])["surprisal"].mean()  # doctest: +SKIP
    """
    return conduct((model_args, data_args, optimization_args or OptimizationArguments()))


@hides_secrets
@lossy_streams("stdout", "stderr")
@joined()
@reading_once()
def conduct(
    all_args: AllArguments, earlier: EarlierRun | None = None, pack: Pack | None = None
) -> RunResult:
    """Do a run, or what is left of an earlier one.

    Args:
        all_args: All arguments.
        earlier: The run that is resumed, if one is. Its directory is locked already.
        pack: What a process of several runs keeps. The directory is locked already then, too.
    """
    model_args, data_args, _ = all_args
    check_arguments(all_args)
    if is_series(model_args):
        return run_series(all_args, earlier, conduct, is_locked=bool(earlier or pack))
    if all_args[2].do_optimize:
        return study(all_args, pack)
    plan = make_plan(all_args, earlier)

    # These are slow to import, so a mistake above is told at once.
    from finetune_lm.analysis.trajectories import leave_trajectories
    from finetune_lm.evaluation.splits import splits_of
    from finetune_lm.evaluation.testing import test
    from finetune_lm.model_modifiers.callbacks import make_callbacks
    from finetune_lm.recording.run_so_far import RunSoFar
    from finetune_lm.runs import preparing
    from finetune_lm.runs.context import Run
    from finetune_lm.runs.on_record import on_record
    from finetune_lm.training.checkpoints import Checkpoints
    from finetune_lm.training.fit import training_on_record
    from finetune_lm.training.loop import train
    from finetune_lm.training.step import make_learner

    accelerator, loaded, datasets = (pack or preparing).load(model_args, data_args, plan.files)
    splits, testing = splits_of(plan, loaded, datasets)
    so_far = RunSoFar(loaded, data_args)
    callbacks = make_callbacks(plan.callbacks, so_far, data_args.seed)
    learner = (
        make_learner(data_args, loaded, accelerator, callbacks, splits.first) if splits else None
    )
    plan.check_model(loaded, str(accelerator.device))
    state = None
    # Signals are heeded until the end of it all, when it is on record how the run ended.
    with (
        Interruption() as interruption,
        nullcontext() if earlier or pack else claimed(plan),
        on_record(plan, loaded, accelerator.device, datasets) as record,
        passing_over_packages() if world().size > 1 else nullcontext(),
    ):
        checkpoints = Checkpoints(
            plan.directory / CHECKPOINTS, data_args.checkpoint_every, record.write, plan.identity
        )
        this = Run(data_args, loaded, accelerator, callbacks, interruption, checkpoints, so_far)
        if splits is not None and learner is not None:
            with training_on_record(this, learner, splits, record, bool(earlier)) as (heard, state):
                train(heard, learner, splits, state)
        best_epoch = state.stopping.best_epoch if state else None
        if testing:
            save = partial(state.save_end, checkpoints) if state else lambda: None
            with record.timed("testing"):
                n_rows = test(this, testing, plan.table_path, best_epoch, save)
            record.add(test_rows=n_rows)
        leave_trajectories(plan.directory)
    # Not before it is on record that the run is finished: one that is killed here must go on.
    checkpoints.remove()
    best_loss = state.stopping.best_loss if state else None
    return RunResult(plan.directory, best_loss, best_epoch, plan.table_path if testing else None)


def study(all_args: AllArguments, pack: Pack | None = None) -> StudyResult:
    """Search for hyperparameters, and do the run of the best trial again if that is wanted."""
    all_args[2].resolve()  # imports Optuna

    from finetune_lm.study.results import best_run_args
    from finetune_lm.study.search import search

    result = search(*all_args, pack.models if pack else None)
    best_args = world().decided(best_run_args, result) if all_args[2].keep_best_trial else None
    if best_args is not None:
        with earlier_in(Path(str(best_args[1].output_dir))) as earlier:
            conduct((*best_args, OptimizationArguments()), earlier, pack)
    return result
