"""Where a training begins: at its beginning, or where an earlier process has left it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.analysis.pair_tables import (
    PAIRS_SUFFIX,
    RESULTS_SUFFIX,
    SUMMARY_SUFFIX,
    ProbePairs,
)
from finetune_lm.errors import UserError
from finetune_lm.evaluation.asked_of_pairs import asked_of_pairs
from finetune_lm.evaluation.splits import Split, TrainingSplits
from finetune_lm.messages import say
from finetune_lm.models.sharding import is_sharded
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.token_table import ProbeTable, ProbeWords, TokenTable, TrainingWords
from finetune_lm.runs.context import Run
from finetune_lm.runs.directory import METRICS, PROBE_RESULTS, words_path
from finetune_lm.training.best_state import BestState
from finetune_lm.training.checkpoints import BEGINNING, TRAINED, Checkpoints, Saved
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.progress import BEFORE_TRAINING, Progress
from finetune_lm.training.state import (
    TrainingState,
    check_fingerprints,
    fingerprints_of,
    parts_with_state,
)
from finetune_lm.training.step import Learner

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

TABLE, LOSSES, PROBES, SO_FAR = "metrics", "losses", "probes", "run"
PROBE_PAIRS, WORDS, PROBE_WORDS = "probe pairs", "words", "probe words"
"""The names of the recorders that have something to go on from."""


def begin_training(
    run: Run, learner: Learner, splits: TrainingSplits, output_dir: Path, resumes: bool
) -> TrainingState:
    """The state in which a training begins, with the tables of its tokens and its losses.

    Args:
        run: What is run, with its checkpoints.
        learner: What learns.
        splits: The data.
        output_dir: Where the tables are.
        resumes: Whether to go on from where an earlier process has left its state.

    Raises:
        UserError: If that is not possible.
    """

    def begin() -> TrainingState:
        return _begin(run, learner, splits, output_dir, resumes)

    # A checkpoint is whole.
    return run.world.in_turns(begin) if resumes and is_sharded(learner.model) else begin()


def _begin(
    run: Run, learner: Learner, splits: TrainingSplits, output_dir: Path, resumes: bool
) -> TrainingState:
    args, checkpoints = run.args, run.checkpoints
    stopping = EarlyStopping.of(args)
    if not resumes:
        checkpoints.remove()
    saved = _newest(checkpoints, output_dir) if resumes else None
    if saved is not None:
        check_fingerprints(saved.state["origin"], splits)
        _check_epochs(saved, stopping, args)
    state = TrainingState(
        model=run.loaded.model,
        stopping=stopping,
        best=BestState(run.loaded.model),
        progress=Progress(args.seed, BEFORE_TRAINING if args.eval_before_training else 0),
        recorders=_recorders(run, splits, output_dir, saved),
        parts=parts_with_state(learner, *splits.learned_from()) | _before(splits),
        origin=fingerprints_of(splits),
    )
    if saved is not None:
        state.restore(saved)
        say(f"Resuming the run in {output_dir} from {saved.position}.")
    elif checkpoints.are_kept:
        checkpoints.write(state.capture_origin())
    return state


def _before(splits: TrainingSplits) -> dict[str, Any]:
    """What tokens cost before the training, by name, where that is measured."""
    return {
        f"{name} before training": split.rows.before
        for name, split in splits.by_name().items()
        if split.rows is not None and split.rows.before is not None
    }


def _recorders(
    run: Run, splits: TrainingSplits, output_dir: Path, saved: Saved | None
) -> dict[str, Any]:
    """Those who listen and have something to go on from, by name.

    Of several ranks the first has all of them, the others only what callbacks see of the run.
    """
    recorders: dict[str, Any] = {}
    if run.so_far.is_asked_for:
        recorders[SO_FAR] = run.so_far
    if not run.world.is_first:
        return recorders

    def add_tables(
        split: Split, file: str, tokens: tuple[str, Any], words: tuple[str, Any]
    ) -> None:
        assert split.rows is not None
        path, columns = output_dir / file, split.rows.run
        beside = [(words, words_path(path))] if run.args.word_tables else []
        for (name, table), place in [(tokens, path), *beside]:
            recorders[name] = table(place, columns, _table_state(saved, name))

    add_tables(splits.learned_from()[0], METRICS, (TABLE, TokenTable), (WORDS, TrainingWords))
    recorders[LOSSES] = LossHistory()
    if splits.probes:
        of_probes = (PROBES, ProbeTable), (PROBE_WORDS, ProbeWords)
        add_tables(splits.probes[0], PROBE_RESULTS, *of_probes)
        asked = asked_of_pairs(run.args, splits.probes)
        if asked.datasets:
            assert splits.probes[0].rows is not None
            columns = splits.probes[0].rows.run
            stem = str(output_dir / PROBE_RESULTS).removesuffix(RESULTS_SUFFIX)
            paths = Path(stem + PAIRS_SUFFIX), Path(stem + SUMMARY_SUFFIX)
            names, state = columns.names(with_step=True), _table_state(saved, PROBE_PAIRS)
            recorders[PROBE_PAIRS] = ProbePairs(paths, asked, names, state)
    return recorders


def _newest(checkpoints: Checkpoints, output_dir: Path) -> Saved | None:
    """The last checkpoint; None if the run was stopped before it had measured anything."""
    saved = checkpoints.newest()
    tokens = [output_dir / name for name in (METRICS, PROBE_RESULTS)]
    tables = [*tokens, *map(words_path, tokens)]
    path = next((each for each in tables if each.exists() and each.stat().st_size), None)
    if saved is None and path is not None:
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
            "epochs and patience cannot be raised any more: training ended after "
            f"{stopping.n_epochs} epochs, and its last weights are not kept. Start another run."
        )


def _table_state(saved: Saved | None, name: str) -> dict[str, Any] | None:
    """How far a table had come, if there was one."""
    if saved is None:
        return None
    state: dict[str, Any] = {} if saved.kind == BEGINNING else saved.state["recorders"][name]
    return state
