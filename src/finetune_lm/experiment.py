"""One run from start to end: plan, load, train, test.

The way of a line of text: `read_examples` reads it from its file, `Dataset` turns it into tensors,
`Forward` calls the model with a batch of them, `TokenRows.of_batch` makes rows of what comes back,
and `TableWriter.write` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_text,
    config_yaml,
)
from finetune_lm.arguments.redaction import hides_secrets
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.data.files import read_files
from finetune_lm.errors import UserError
from finetune_lm.runs import directory as place
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.identity import MODEL, AllArguments
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.one_process import check_one_process
from finetune_lm.runs.plan import Plan, make_plan
from finetune_lm.runs.run_result import RunResult
from finetune_lm.streams import lossy_streams
from finetune_lm.whole_files import checksums, write_whole

if TYPE_CHECKING:
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
        The tables, the best loss and the output directory. After a study a `StudyResult`, which
        also has the best values and the table of trials.

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
def conduct(all_args: AllArguments, earlier: EarlierRun | None = None) -> RunResult:
    """Do a run, or what is left of an earlier one.

    Args:
        all_args: All arguments.
        earlier: The run that is resumed, if one is. Its directory is locked already.
    """
    model_args, data_args, _ = all_args
    problems = [problem for args in all_args for problem in args.problems()]
    if problems:
        raise UserError(*problems)
    check_one_process(is_study=all_args[2].do_optimize)
    if all_args[2].do_optimize:
        return study(*all_args)
    plan = make_plan(all_args, earlier)

    # These are slow to import, so a mistake above is told at once.
    from finetune_lm.evaluation.splits import splits_of
    from finetune_lm.evaluation.testing import test
    from finetune_lm.model_modifiers.callbacks import make_callbacks
    from finetune_lm.runs.context import Run
    from finetune_lm.runs.loading import load
    from finetune_lm.runs.on_record import on_record
    from finetune_lm.training.checkpoints import Checkpoints
    from finetune_lm.training.fit import fit
    from finetune_lm.training.learner import make_learner

    accelerator, loaded, datasets = load(model_args, data_args, plan.files)
    start = next(dataset.start_tokens for group in datasets.values() for dataset in group)
    plan.identity[MODEL] = loaded.origin
    training, validation, testing = splits_of(plan, loaded, datasets)
    callbacks = make_callbacks(
        model_args.callbacks(),
        loaded,
        data_args.seed,
        is_training=bool(training),
        is_testing=bool(testing),
    )
    learner = (
        make_learner(data_args, loaded, accelerator, callbacks, training[0]) if training else None
    )
    if earlier is not None:
        plan.check_identity()
        earlier.warn_of_surroundings(str(accelerator.device))
    state = None
    # Signals wait until the end of it all, when it is on record how the run ended.
    with (
        Interruption() as interruption,
        nullcontext() if earlier else claimed(plan),
        on_record(plan, loaded, accelerator.device, start_tokens=start) as record,
    ):
        write_config(plan, start)
        record.add(files=checksums(plan.directory, *place.SEALED))
        checkpoints = Checkpoints(
            plan.directory / place.CHECKPOINTS,
            data_args.checkpoint_every,
            record.write,
            plan.identity,
        )
        this = Run(data_args, loaded, accelerator, callbacks, interruption, checkpoints)
        if learner is not None:
            splits = training[0], validation[0]
            state = fit(this, learner, splits, record, resumes=earlier is not None)
        best_epoch = state.stopping.best_epoch if state else None
        if testing:

            def save() -> None:
                if state is not None and state.at_end is not None and not checkpoints.are_kept:
                    checkpoints.write(state.at_end)

            with record.timed("testing"):
                n_rows = test(this, testing, plan.table_path, best_epoch, save)
            record.add(test_rows=n_rows)
    # Not before it is on record that the run is finished: one that is killed here must go on.
    checkpoints.remove()
    return RunResult(
        plan.directory,
        state.stopping.best_loss if state else None,
        best_epoch,
        plan.table_path if testing else None,
    )


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Make a new run's output directory, and keep others from writing into it."""
    place.make_output_dir(plan.directory)
    with RunLock(plan.directory):
        # Once more, since another run may have come and gone while the model was loaded.
        place.check_output_dir(plan.directory, plan.all_args[1], plan.identity)
        yield


def write_config(plan: Plan, start_tokens: list[str]) -> None:
    """Leave the configuration: for people, and for a run that repeats this one."""
    shown = " ".join(start_tokens) or "nothing"
    text = f"{config_text(*plan.all_args)}\nWhat stood before each text\n  start_tokens: {shown}\n"
    for name, content in (
        (CONFIG_YAML, config_yaml(*plan.all_args)),
        (place.CONFIG_TEXT, text),
    ):
        with write_whole(plan.directory / name) as aside:
            aside.write_text(content, encoding="utf-8")


def study(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments,
) -> StudyResult:
    """Search for hyperparameters, and do the run of the best trial again if that is wanted.

    Raises:
        UserError: If something is wrong that the user can put right.
    """
    optimization_args.resolve()  # imports Optuna

    from finetune_lm.runs.loading import load_without_data
    from finetune_lm.study.results import best_run_args
    from finetune_lm.study.search import search

    result = search(model_args, data_args, optimization_args, load_without_data)
    if optimization_args.keep_best_trial:
        best_args = best_run_args(result, model_args)
        if best_args is not None:
            run(model_args, best_args)
    return result


@hides_secrets
def preview(model_args: ModelArguments, data_args: DataTrainingArguments, n: int) -> str:
    """Show what the model will be fed, for a person to look at. Nothing is trained or written.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: Which data, and what is done to them.
        n: How many examples of each file to show.

    Raises:
        UserError: If something is wrong that the user can put right.
    """
    problems = [*model_args.problems(), *data_args.problems()]
    if problems:
        raise UserError(*problems)
    check_one_process()
    files = read_files(data_args)

    from finetune_lm.data.preview import render
    from finetune_lm.runs.loading import load

    _, _, datasets = load(model_args, data_args, files)
    parts = [
        f"{dataset_type}: {render(dataset, n)}"
        for dataset_type, group in datasets.items()
        for dataset in group
    ]
    return "\n".join(parts)
