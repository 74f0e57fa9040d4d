"""One run from start to end: read, load, train, test, write.

The way of a line of text: `read_examples` reads it from its file, `Dataset` turns it into tensors,
`forward` calls the model with a batch of them, `TokenRows.of_batch` makes rows of what comes back,
and `TableWriter.write` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
    config_text,
    config_yaml,
    without_token,
)
from finetune_lm.data.files import Files, file_hashes, read_files
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.results import output_directory as place
from finetune_lm.results.columns import MetadataColumns, all_loss_columns, table_columns
from finetune_lm.results.loss_history import LossHistory
from finetune_lm.results.run_record import RunRecord
from finetune_lm.results.run_result import RunResult
from finetune_lm.results.tables import TableWriter
from finetune_lm.results.whole_files import write_whole

if TYPE_CHECKING:
    import accelerate
    import torch

    from finetune_lm.data.dataset import Dataset
    from finetune_lm.evaluation.splits import Split
    from finetune_lm.models.loading import LoadedModel
    from finetune_lm.optimization.study_result import StudyResult
    from finetune_lm.training.early_stopping import EarlyStopping
    from finetune_lm.training.learner import Learner


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
    all_args = (model_args, data_args, optimization_args or OptimizationArguments())
    problems = [problem for args in all_args for problem in args.problems()]
    if problems:
        raise UserError(*problems)
    if all_args[2].do_optimize:
        return study(*all_args)

    # What can be found wrong without a model is found before one is loaded.
    files = read_files(data_args)
    output_dir = place.choose_output_dir(
        data_args.output_dir, model_args.model_name_or_path, [f.name for f in files["train"]]
    )
    place.check_output_dir(output_dir, config_dict(*all_args), file_hashes(files))
    losses = all_loss_columns(data_args.loss_classes) if files["train"] else []
    metadata = MetadataColumns.of_files([*files["train"], *files["validation"]], losses)
    test_metadata = MetadataColumns.of_files(files["test"])

    # These are slow to import, so a mistake above is told at once.
    from finetune_lm.evaluation.splits import make_splits
    from finetune_lm.evaluation.token_rows import RunColumns
    from finetune_lm.training.learner import make_learner

    accelerator, loaded, datasets = load(model_args, data_args, files)
    columns = RunColumns.of(loaded, data_args.seed, metadata, losses)
    test_columns = RunColumns.of(loaded, data_args.seed, test_metadata)
    training = make_splits("train", datasets, loaded, data_args, columns)
    validation = make_splits("validation", datasets, loaded, data_args, columns)
    testing = make_splits("test", datasets, loaded, data_args, test_columns)
    learner = make_learner(model_args, data_args, loaded, accelerator) if training else None

    place.make_output_dir(output_dir)
    stopping = None
    test_results = None
    with on_record(output_dir, model_args, loaded, accelerator.device, files) as record:
        write_text(output_dir / place.CONFIG_YAML, config_yaml(*all_args))
        write_text(output_dir / place.CONFIG_TEXT, config_text(*all_args))
        if learner is not None:
            [train_split], [validation_split] = training, validation
            stopping = train_and_save(
                learner, loaded, train_split, validation_split, data_args, output_dir, record
            )
        if testing:
            epoch = stopping.best_epoch if stopping else None
            test_results = test(
                loaded, testing, data_args, output_dir, record, epoch, accelerator.device
            )
    return RunResult(
        output_dir,
        stopping.best_loss if stopping else None,
        stopping.best_epoch if stopping else None,
        test_results,
    )


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

    from finetune_lm.optimization.best_run import best_run_args
    from finetune_lm.optimization.search import search

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
    from finetune_lm.training.setup import prepare_process

    accelerator = prepare_process(data_args.seed, model_args.use_gpu)
    config, task = identify(model_args)
    check_kinds(files, model_args.model_name_or_path, task, data_args)
    loaded = load_model(model_args, (config, task))
    loaded.model.to(accelerator.device)
    return accelerator, loaded


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
    training: Split,
    validation: Split,
    args: DataTrainingArguments,
    output_dir: Path,
    record: RunRecord,
) -> EarlyStopping:
    """Train, and leave the metrics, the loss curves and the best model.

    Whatever ends the training (a mistake, Ctrl-C), what was measured stays, and so does the best
    model by then. Afterwards the model has its best weights.
    """
    from finetune_lm.training.best_state import BestState
    from finetune_lm.training.early_stopping import EarlyStopping
    from finetune_lm.training.loop import train

    columns = table_columns(
        with_sequence_type=loaded.task.reports_greedy_rows,
        losses=training.rows.run.losses,
        metadata=training.rows.run.metadata.names,
    )
    table = TableWriter(output_dir / place.METRICS, columns)
    history = LossHistory()
    stopping = EarlyStopping(args.patience, args.delta, args.min_epochs)
    best = BestState(loaded.model)
    try:
        with record.timed("training"), table:
            train(learner, training, validation, args, table, history, stopping, best)
    finally:
        record.add(
            epochs=stopping.n_epochs,
            best_epoch=stopping.best_epoch,
            best_validation_loss=stopping.best_loss if stopping.n_epochs else None,
            metrics_rows=table.n_rows,
        )
        if stopping.n_epochs:
            plot_losses(output_dir, history, loaded, stopping.best_epoch)
            best.restore()
            if args.save_best_model_state_to_disk:
                save_model(loaded, output_dir)
    return stopping


def test(
    loaded: LoadedModel,
    splits: list[Split],
    args: DataTrainingArguments,
    output_dir: Path,
    record: RunRecord,
    epoch: int | None,
    device: torch.device,
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

    Returns:
        The table's path.
    """
    from finetune_lm.evaluation.testing import record_test_sets

    prefix = place.as_file_name(args.test_output_file_prefix or loaded.name)
    path = output_dir / f"{prefix}{place.TEST_RESULTS_SUFFIX}"
    columns = table_columns(
        with_sequence_type=loaded.task.reports_greedy_rows,
        losses=[],
        metadata=splits[0].rows.run.metadata.names,
    )
    with record.timed("testing"), write_whole(path) as aside, TableWriter(aside, columns) as table:
        temporary = output_dir if args.save_tmp_test_files else None
        record_test_sets(loaded, splits, table, temporary, epoch=epoch, device=device)
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
    output_dir: Path, history: LossHistory, loaded: LoadedModel, best_epoch: int | None
) -> None:
    """Plot the loss curves. A plot that fails costs a warning, not the run."""
    from finetune_lm.results.plots import save_loss_curves

    title = f"{loaded.name} ({loaded.n_params} parameters)"
    try:
        save_loss_curves(output_dir / place.LOSS_CURVES, history, title, best_epoch)
    except Exception as error:
        warn(f"the loss curves could not be plotted: {error!r}")


@contextmanager
def on_record(
    output_dir: Path,
    model_args: ModelArguments,
    loaded: LoadedModel,
    device: torch.device,
    files: Files,
) -> Iterator[RunRecord]:
    """Keep ``run.json`` while a run is under way, and say in it how the run ended."""
    record = RunRecord(
        output_dir / place.RUN_JSON,
        model={"name": loaded.name, "task": loaded.task.name, "n_params": loaded.n_params},
        device=str(device),
        data={kind: {f.path: len(f) for f in group} for kind, group in files.items() if group},
        data_sha256=file_hashes(files),
    )
    try:
        yield record
    except OSError as error:
        record.end("failed", without_token(str(error), model_args))
        if not place.is_about_writing(error, output_dir):
            raise
        raise UserError(
            f"{output_dir} cannot be written into: {error.strerror or error}. What was written "
            f"before is kept."
        ) from error
    except KeyboardInterrupt:
        record.end("interrupted")
        raise
    except BaseException as error:
        record.end("failed", without_token(f"{type(error).__name__}: {error}", model_args))
        raise
    record.end("finished")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_whole(path) as aside:
        aside.write_text(text, encoding="utf-8")
