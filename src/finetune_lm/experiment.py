"""One run from start to end: read, load, train, test, write.

The way of a line of text: `read_examples` reads it from its file, `Dataset` turns it into tensors,
`Forward` calls the model with a batch of them, `TokenRows.of_batch` makes rows of what comes back,
and `TableWriter.write` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
    config_text,
    config_yaml,
)
from finetune_lm.arguments.redaction import hides_secrets
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.data.files import Examples, Files, arguments_of_missing_files, read_files
from finetune_lm.errors import UserError
from finetune_lm.evaluation.losses import read_loss_files
from finetune_lm.messages import warn
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.recording.columns import MetadataColumns, all_loss_columns, table_columns
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.tables import TableWriter
from finetune_lm.runs import directory as place
from finetune_lm.runs.earlier_run import EarlierRun, warn_of_changed_model
from finetune_lm.runs.identity import MODEL, identity_of, paths_of
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.on_record import on_record
from finetune_lm.runs.one_process import check_one_process
from finetune_lm.runs.record import RunRecord
from finetune_lm.runs.run_result import RunResult
from finetune_lm.streams import lossy_streams
from finetune_lm.whole_files import checksums, write_whole

if TYPE_CHECKING:
    import accelerate
    import torch

    from finetune_lm.data.dataset import Dataset
    from finetune_lm.evaluation.splits import Split
    from finetune_lm.model_modifiers.callbacks import Callbacks
    from finetune_lm.models.loading import LoadedModel
    from finetune_lm.study.results import StudyResult
    from finetune_lm.training.checkpoints import Checkpoints, Saved
    from finetune_lm.training.early_stopping import EarlyStopping
    from finetune_lm.training.learner import Learner
    from finetune_lm.training.state import TrainingState


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
def conduct(
    all_args: tuple[ModelArguments, DataTrainingArguments, OptimizationArguments],
    earlier: EarlierRun | None = None,
) -> RunResult:
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

    # What can be found wrong without a model is found before one is loaded.
    files, loss_files = read_data(data_args, earlier)
    used = {**files, "loss": loss_files}
    identity = identity_of(all_args, used)
    if earlier is None:
        output_dir = place.choose_output_dir(
            data_args.output_dir, model_args.model_name_or_path, [f.name for f in files["train"]]
        )
        place.check_output_dir(output_dir, data_args, identity)
    else:
        output_dir = earlier.directory
        earlier.check(identity, paths_of(used))
        earlier.tell_of_moved_files(config_dict(*all_args))
    if files["test"]:
        place.results_name(data_args.test_output_file_prefix, model_args.model_name_or_path)
    losses = all_loss_columns(data_args.loss_classes) if files["train"] else []
    metadata = MetadataColumns.of_files([*files["train"], *files["validation"]], losses)
    test_metadata = MetadataColumns.of_files(files["test"])

    # These are slow to import, so a mistake above is told at once.
    from finetune_lm.data.seen import seen_before
    from finetune_lm.evaluation.splits import make_splits
    from finetune_lm.model_modifiers.callbacks import make_callbacks
    from finetune_lm.recording.token_rows import RunColumns
    from finetune_lm.training.checkpoints import Checkpoints
    from finetune_lm.training.learner import make_learner

    accelerator, loaded, datasets = load(model_args, data_args, files)
    start = next(dataset.start_tokens for group in datasets.values() for dataset in group)
    identity[MODEL] = loaded.origin
    columns = RunColumns.of(loaded, data_args.seed, metadata, losses)
    seen_in = seen_before(files, loaded.task)
    test_columns = RunColumns.of(loaded, data_args.seed, test_metadata, seen_in=seen_in)
    training = make_splits("train", datasets, loaded, data_args, columns)
    validation = make_splits("validation", datasets, loaded, data_args, columns)
    testing = make_splits("test", datasets, loaded, data_args, test_columns)
    callbacks = make_callbacks(
        model_args.callbacks(),
        loaded.model,
        loaded.tokenizer,
        seed=data_args.seed,
        is_training=bool(training),
        is_testing=bool(testing),
    )
    learner = (
        make_learner(data_args, loaded, accelerator, callbacks, training[0]) if training else None
    )

    if earlier is not None:
        earlier.check(identity, paths_of(used))
        earlier.warn_of_surroundings(str(accelerator.device))
    stopping = at_end = test_results = None
    # Signals wait until the end of it all, when it is on record how the run ended.
    with (
        Interruption() as interruption,
        nullcontext() if earlier else claimed(output_dir, data_args, identity),
        on_record(
            output_dir,
            all_args,
            loaded,
            accelerator.device,
            used,
            earlier,
            identity=identity,
            start_tokens=start,
        ) as record,
    ):
        write_text(output_dir / CONFIG_YAML, config_yaml(*all_args))
        shown = " ".join(start) or "nothing"
        write_text(
            output_dir / place.CONFIG_TEXT,
            f"{config_text(*all_args)}\nWhat stood before each text\n  start_tokens: {shown}\n",
        )
        record.add(files=checksums(output_dir, *place.SEALED))
        checkpoints = Checkpoints(
            output_dir / place.CHECKPOINTS, data_args.checkpoint_every, record.write, identity
        )
        if learner is not None:
            stopping, at_end = train_and_save(
                learner,
                loaded,
                (training[0], validation[0]),
                data_args,
                output_dir,
                record,
                interruption,
                checkpoints,
                resumes=earlier is not None,
            )
        if testing:

            def save() -> None:
                if at_end is not None and not checkpoints.are_kept:
                    checkpoints.write(at_end)

            test_results = test(
                loaded,
                testing,
                data_args,
                output_dir,
                record,
                stopping.best_epoch if stopping else None,
                accelerator.device,
                callbacks,
                check=lambda: interruption.check(before=save),
            )
    # Not before it is on record that the run is finished: one that is killed here must go on.
    checkpoints.remove()
    return RunResult(
        output_dir,
        stopping.best_loss if stopping else None,
        stopping.best_epoch if stopping else None,
        test_results,
    )


def read_data(
    args: DataTrainingArguments, earlier: EarlierRun | None
) -> tuple[Files, list[Examples]]:
    """Read the data files, and those of the losses.

    Raises:
        UserError: With every problem of every file.
    """
    try:
        files = read_files(args)
        return files, read_loss_files(args) if files["train"] else []
    except UserError as error:
        missing = arguments_of_missing_files(args)
        if earlier is None or not missing:
            raise
        now = " ".join(f"--{name} PATH" for name in missing)
        raise UserError(
            *error.problems,
            f"If data files have moved, say where they are now: --resume {earlier.directory} {now}",
        ) from error


@contextmanager
def claimed(
    output_dir: Path, args: DataTrainingArguments, identity: dict[str, Any]
) -> Iterator[None]:
    """Make a new run's output directory, and keep others from writing into it."""
    place.make_output_dir(output_dir)
    with RunLock(output_dir):
        # Once more, since another run may have come and gone while the model was loaded.
        place.check_output_dir(output_dir, args, identity)
        yield


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

    from finetune_lm.study.results import best_run_args
    from finetune_lm.study.search import search

    result = search(model_args, data_args, optimization_args, load_without_data)
    if optimization_args.keep_best_trial:
        best_args = best_run_args(result, model_args)
        if best_args is not None:
            run(model_args, best_args)
    return result


def load(
    model_args: ModelArguments, data_args: DataTrainingArguments, files: Files
) -> tuple[accelerate.Accelerator, LoadedModel, dict[str, list[Dataset]]]:
    """Seed the generators, load the model, and make of the data what it will be fed.

    Raises:
        UserError: If the model is not there, or does not go with the data or with what is to be
            done to them. Where that can be told by its config, nothing else is loaded.
    """
    from finetune_lm.data.loading import load_datasets

    accelerator, loaded = load_without_data(model_args, data_args, files)
    return accelerator, loaded, load_datasets(files, loaded, data_args)


def load_without_data(
    model_args: ModelArguments, data_args: DataTrainingArguments, files: Files
) -> tuple[accelerate.Accelerator, LoadedModel]:
    """Seed the generators and load the model, once it is known that the data are for its kind."""
    from finetune_lm.data.loading import check_kinds
    from finetune_lm.models.loading import identify, load_model
    from finetune_lm.scoring.visibility import check_order, is_exact
    from finetune_lm.training.setup import prepare_model, prepare_process

    accelerator = prepare_process(
        data_args.seed, model_args.use_gpu, model_args.precision, fast=data_args.fast
    )
    warn_of_changed_model(model_args.model_name_or_path)
    config, task = identify(model_args)
    check_kinds(files, model_args.model_name_or_path, task, data_args)
    loaded = load_model(model_args, (config, task))
    try:
        prepare_model(loaded.model, model_args, accelerator, fast=data_args.fast)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{model_args.model_name_or_path} must fit into the memory of {accelerator.device} but "
            f"does not. Take a smaller model, or fewer bits for its weights (--model_kwargs.dtype)."
        ) from error
    loaded.is_exact = is_exact(loaded.model, model_args.precision)
    check_order(loaded.name, loaded.task, loaded.model, is_exact=loaded.is_exact)
    return accelerator, loaded


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

    _, _, datasets = load(model_args, data_args, files)
    parts = [
        f"{dataset_type}: {render(dataset, n)}"
        for dataset_type, group in datasets.items()
        for dataset in group
    ]
    return "\n".join(parts)


def train_and_save(
    learner: Learner,
    loaded: LoadedModel,
    splits: tuple[Split, Split],
    args: DataTrainingArguments,
    output_dir: Path,
    record: RunRecord,
    interruption: Interruption,
    checkpoints: Checkpoints,
    resumes: bool,
) -> tuple[EarlyStopping, Saved]:
    """Train, and leave the metrics, the loss curves and the best model.

    Whatever ends the training (a mistake, Ctrl-C), what was measured stays, and so does the best
    model by then. Afterwards the model has its best weights.

    Args:
        learner: What learns.
        loaded: The model.
        splits: The training and the validation data.
        args: How it learns.
        output_dir: Where all that goes.
        record: Is told how well and how long it went.
        interruption: Says whether to stop.
        checkpoints: Where the state is saved, and where it is found if the run is resumed.
        resumes: Whether it is.

    Returns:
        How it went, and what to keep if the run is stopped after it.
    """
    from finetune_lm.training.loop import train
    from finetune_lm.training.start import begin_training

    state = begin_training(learner, loaded, splits, args, output_dir, checkpoints, resumes)
    try:
        with record.timed("training"), state.table:
            if not state.is_over:
                train(learner, *splits, args, state, interruption, checkpoints)
    except BaseException as error:
        if not getattr(error, "at_once", False):
            try:
                save_training(state, loaded, args, output_dir, record)
            except Exception as another:
                warn(f"the best model could not be saved either: {another}")
        raise
    at_end = state.capture_trained()
    if checkpoints.are_kept and not state.is_over:
        checkpoints.write(at_end)
    save_training(state, loaded, args, output_dir, record)
    state.progress.tell_of_skipped()
    return state.stopping, at_end


def save_training(
    state: TrainingState,
    loaded: LoadedModel,
    args: DataTrainingArguments,
    output_dir: Path,
    record: RunRecord,
) -> None:
    """Leave what the training has come to: facts, loss curves, the best model."""
    stopping = state.stopping
    record.add(**state.facts())
    if not stopping.n_epochs:
        return
    plot_losses(output_dir, state.history, loaded, args, stopping.best_epoch)
    state.best.restore()
    if args.save_best_model_state_to_disk and stopping.best_epoch is not None:
        save_model(loaded, output_dir)
        record.add(files=checksums(output_dir, *place.SEALED))


def test(
    loaded: LoadedModel,
    splits: list[Split],
    args: DataTrainingArguments,
    output_dir: Path,
    record: RunRecord,
    epoch: int | None,
    device: torch.device,
    callbacks: Callbacks,
    check: Callable[[], object],
) -> Path:
    """Test the model on all test sets, and leave one table of what each token costs.

    Args:
        loaded: The model.
        splits: The test sets.
        args: How the table is called, and whether to keep temporary files.
        output_dir: Where the table goes.
        record: Is told how long it took.
        epoch: The epoch whose model it is; None if it was not trained.
        device: Where the model is.
        callbacks: Act at the points of the test.
        check: Called after each batch; stops the run if that is asked for.

    Returns:
        The table's path.
    """
    from finetune_lm.evaluation.testing import record_test_sets

    path = output_dir / place.results_name(args.test_output_file_prefix, loaded.name)
    columns = table_columns(
        with_sequence_type=loaded.task.reports_greedy_rows,
        losses=[],
        metadata=splits[0].rows.run.metadata.names,
    )
    with record.timed("testing"), write_whole(path) as aside, TableWriter(aside, columns) as table:
        temporary = output_dir if args.save_tmp_test_files else None
        record_test_sets(
            loaded,
            splits,
            table,
            temporary,
            epoch=epoch,
            device=device,
            callbacks=callbacks,
            check=check,
            on_nan=args.on_nan,
        )
    record.add(test_rows=table.n_rows)
    return path


def save_model(loaded: LoadedModel, output_dir: Path) -> None:
    """Save the model as it is now, and its tokenizer, ready for ``from_pretrained``.

    Raises:
        UserError: If they cannot be written.
    """
    for part, name in ((loaded.model, place.MODEL), (loaded.tokenizer, place.TOKENIZER)):
        try:
            with write_whole(output_dir / name) as aside:
                part.save_pretrained(aside)
        except Exception as error:
            # The libraries that write weights and vocabularies have errors of their own for a full
            # disk, which are no OSError.
            raise UserError(
                f"the {name} cannot be saved in {output_dir}: {error}. What was measured is kept."
            ) from error


def plot_losses(
    output_dir: Path,
    history: LossHistory,
    loaded: LoadedModel,
    args: DataTrainingArguments,
    best_epoch: int | None,
) -> None:
    """Plot the loss curves. A plot that fails costs a warning, not the run."""
    from finetune_lm.evaluation.loss_units import loss_units
    from finetune_lm.recording.curves import save_loss_curves

    train, validation = (Path(f or "").name for f in (args.train_file, args.validation_file))
    title = (
        f"{loaded.name} ({loaded.n_params} parameters), seed {args.seed}\n"
        f"training: {train}\nvalidation: {validation}"
    )
    try:
        path = output_dir / place.LOSS_CURVES
        save_loss_curves(path, history, title, best_epoch, loss_units(args))
    except Exception as error:
        warn(f"the loss curves could not be plotted: {error!r}")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
