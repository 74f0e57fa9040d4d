"""Train, and leave the metrics, the loss curves and the best model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.evaluation.loss_units import loss_units
from finetune_lm.evaluation.splits import TrainingSplits
from finetune_lm.messages import warn
from finetune_lm.models.adapters import adapter_of, whole_again
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.sharding import is_sharded
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.progress_bars import EpochBar
from finetune_lm.recording.recorder import Recorder
from finetune_lm.recording.trackers import Trackers
from finetune_lm.runs import directory as place
from finetune_lm.runs.context import Run
from finetune_lm.runs.record import RunRecord
from finetune_lm.runs.requeueing import something_is_kept
from finetune_lm.training.best_state import saved_weights
from finetune_lm.training.start import (
    LOSSES,
    PROBE_PAIRS,
    PROBE_WORDS,
    PROBES,
    TABLE,
    WORDS,
    begin_training,
)
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import Learner
from finetune_lm.whole_files import checksums, write_whole


@contextmanager
def training_on_record(
    run: Run, learner: Learner, splits: TrainingSplits, record: RunRecord, resumes: bool
) -> Iterator[tuple[Run, TrainingState]]:
    """Leave the metrics, the loss curves and the best model of the training that is done inside.

    Whatever ends it (a mistake, Ctrl-C), what was measured stays, and so does the best model by
    then. Afterwards the model has its best weights.

    Args:
        run: What is run.
        learner: What learns.
        splits: The data.
        record: Is told how well and how long it went, and knows where all that goes.
        resumes: Whether an earlier process has begun it.

    Yields:
        The run with those who listen to its training, and the state in which that begins.
    """
    state = begin_training(run, learner, splits, record.directory, resumes)
    shown = [] if state.is_over or not run.world.is_first else _shown(run, state, record)
    run = run.with_recorders(*state.recorders.values(), *shown)
    try:
        with record.timed("training"), run.recorders.listening(max(state.progress.epoch, 0)):
            yield run, state
    except BaseException as error:
        if not getattr(error, "at_once", False):
            try:
                _save_training(run, state, record, has_failed=True)
            except Exception as another:
                warn(f"the best model could not be saved either: {another}")
        raise
    # Now, since testing may draw random numbers.
    state.at_end = state.capture_trained()
    if run.checkpoints.are_kept and not state.is_over:
        something_is_kept()
        run.checkpoints.write(state.at_end)
    _save_training(run, state, record)
    state.progress.tell_of_skipped()


def _shown(run: Run, state: TrainingState, record: RunRecord) -> list[Recorder]:
    """Those that show how far it is."""
    bar = EpochBar(run.args.epochs, loss_units(run.args)[LOSS])
    return [bar, *_trackers(run, state, record)]


def _trackers(run: Run, state: TrainingState, record: RunRecord) -> list[Trackers]:
    """Those that a run is to tell, which see its arguments as its config file has them."""
    import yaml

    args = run.args
    if not args.log_with:
        return []
    config = yaml.safe_load((record.directory / CONFIG_YAML).read_text("utf-8"))
    wanted = {name: args.log_with_kwargs.get(name, {}) for name in args.log_with}
    pairs = state.recorders.get(PROBE_PAIRS)
    numbers = (lambda: pairs.numbers) if pairs is not None else dict
    in_epoch = state.progress.probes.last_epoch
    has_news = in_epoch is not None and 0 <= in_epoch == state.progress.epoch
    return [Trackers(wanted, config, record.directory, numbers, has_news=has_news)]


def _save_training(
    run: Run, state: TrainingState, record: RunRecord, *, has_failed: bool = False
) -> None:
    """Leave what the training has come to: facts, loss curves, the best model.

    Args:
        run: What is run.
        state: Where the training is.
        record: Is told.
        has_failed: Whether an error has ended it, maybe on this rank only.
    """
    stopping = state.stopping
    tables = {
        TABLE: "metrics_rows",
        PROBES: "probe_rows",
        WORDS: "word_rows",
        PROBE_WORDS: "probe_word_rows",
    }
    n_rows = {
        fact: state.recorders[name].n_rows
        for name, fact in tables.items()
        if name in state.recorders
    }
    record.add(**state.facts(), **n_rows)
    if not stopping.n_epochs:
        return
    assert state.best is not None
    state.best.restore()
    saves = run.args.save_best_model_state_to_disk and stopping.best_epoch is not None
    model, weights = run.loaded.model, None
    if saves and is_sharded(model):
        if has_failed and not run.world.all_have_stopped():
            warn("the best model could not be saved, of which each process has a part.")
            saves = False
        else:
            weights = saved_weights(model)
    if not run.world.is_first:
        return
    _plot_losses(run, state, record.directory)
    if saves:
        loaded = run.loaded
        if weights is not None and adapter_of(model) is not None:
            loaded, weights = replace(loaded, model=whole_again(model, weights)), None
        _save_model(loaded, record.directory, weights)
        record.add(files=checksums(record.directory, *place.SEALED))


def _save_model(
    loaded: LoadedModel, output_dir: Path, weights: dict[str, Any] | None = None
) -> None:
    """Save the model as it is now, and its tokenizer, ready for ``from_pretrained``.

    Of a model with an adapter that is the adapter. If the model is to be saved with the adapter
    merged into it, the adapter is saved beside it.

    Args:
        loaded: Both.
        output_dir: Where.
        weights: The model's, whole, if ranks hold parts of them.

    Raises:
        UserError: If they cannot be written.
    """
    parts = {place.MODEL: loaded.model, place.TOKENIZER: loaded.tokenizer}
    if (adapter := adapter_of(loaded.model)) is not None:
        parts |= (
            {place.ADAPTER: adapter, place.MODEL: adapter.merged()}
            if adapter.merge
            else {place.MODEL: adapter}
        )
    for name, part in parts.items():
        try:
            with write_whole(output_dir / name) as aside:
                given = {"state_dict": weights} if part is loaded.model and weights else {}
                part.save_pretrained(aside, **given)
        except Exception as error:
            # The libraries that write weights and vocabularies have errors of their own for a full
            # disk, which are no OSError.
            raise UserError(
                f"the {name} cannot be saved in {output_dir}: {error}. What was measured is kept."
            ) from error


def _plot_losses(run: Run, state: TrainingState, output_dir: Path) -> None:
    """Plot the loss curves. A plot that fails costs a warning, not the run."""
    from finetune_lm.recording.curves import save_loss_curves

    args, loaded = run.args, run.loaded
    train_name, validation_name = (
        Path(file or "").name for file in (args.train_file, args.validation_file)
    )
    title = (
        f"{loaded.name} ({loaded.n_params} parameters), seed {args.seed}\n"
        f"training: {train_name}\nvalidation: {validation_name}"
    )
    path, best_epoch = output_dir / place.LOSS_CURVES, state.stopping.best_epoch
    try:
        save_loss_curves(path, state.recorders[LOSSES], title, best_epoch, loss_units(args))
    except Exception as error:
        warn(f"the loss curves could not be plotted: {error!r}")
