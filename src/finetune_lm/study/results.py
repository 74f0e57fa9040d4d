"""What a study has found: the table of its trials, and the best of them, run again in full."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
)
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import TrialsFailedError, UserError
from finetune_lm.messages import say
from finetune_lm.recording.csv_cells import MISSING
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.runs.directory import BEST_TRIAL, OPTIMIZATION_RESULTS
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.run_result import RunResult
from finetune_lm.study.parameters import Parameter, with_model_values, with_values
from finetune_lm.study.workers import REASON, REPEATS, SURPLUS, WORKER
from finetune_lm.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd


N_EPOCHS = "n_epochs"
"""How many epochs a trial has finished."""
BEST_EPOCH = "best_epoch"
"""The epoch with its lowest validation loss."""
PRUNED = "pruned"
"""Whether it was ended because it promised nothing."""

_TIMES = "%Y-%m-%d %H:%M:%S"


def results_table(study: optuna.Study, parameters: Sequence[Parameter], seed: int) -> pa.Table:
    """All trials of a study, those of other processes among them.

    Args:
        study: The study.
        parameters: What it searches for; a column each.
        seed: The seed of all its trials.
    """
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    columns: dict[str, pa.Array] = {
        "study_name": pa.array([study.study_name] * len(trials), pa.string()),
        "number": pa.array([t.number for t in trials], pa.int64()),
        "state": pa.array([t.state.name for t in trials], pa.string()),
        "value": pa.array([_value(t) for t in trials], pa.float64()),
        PRUNED: pa.array([_is_pruned(t) for t in trials], pa.bool_()),
    }
    for parameter in parameters:
        columns[parameter.name] = _column([_tried(t, parameter.name) for t in trials], parameter)
    # A parameter may have the name of one of these, and then says the same.
    workers = [t.user_attrs.get(WORKER) or {} for t in trials]
    rest: dict[str, pa.Array] = {
        N_EPOCHS: pa.array([t.user_attrs.get(N_EPOCHS) for t in trials], pa.int64()),
        BEST_EPOCH: pa.array([t.user_attrs.get(BEST_EPOCH) for t in trials], pa.int64()),
        "seed": pa.array([seed] * len(trials), pa.int64()),
        REASON: pa.array([_reason(t, trials) for t in trials], pa.string()),
        REPEATS: pa.array([t.user_attrs.get(REPEATS) for t in trials], pa.int64()),
        "started": pa.array([_time(t.datetime_start) for t in trials], pa.string()),
        "ended": pa.array([_time(t.datetime_complete) for t in trials], pa.string()),
        "seconds": pa.array([_seconds(t) for t in trials], pa.float64()),
        "host": pa.array([worker.get("host") for worker in workers], pa.string()),
        "pid": pa.array([worker.get("pid") for worker in workers], pa.int64()),
        "slurm_job_id": pa.array([w.get("slurm_job_id") or None for w in workers], pa.string()),
    }
    return pa.table({**rest, **columns}).select([*columns, *(n for n in rest if n not in columns)])


def write_results(path: Path, table: pa.Table) -> None:
    """Write a table as gzipped CSV, whole, whatever other processes do at the same time."""
    with write_whole(path, shared=True) as aside:
        aside.write_bytes(gzip.compress(csv_text(table), mtime=0))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best trial; None if none has been completed."""
    try:
        return study.best_trial
    except ValueError:
        return None


def load_results(path: Path) -> pd.DataFrame:
    """Read the table of a study, with what is missing as missing."""
    import pandas as pd

    return pd.read_csv(path, na_values=[MISSING], keep_default_na=False)


def _value(trial: FrozenTrial) -> float | None:
    value = trial.value
    return None if value is None or math.isnan(value) else value


def _is_pruned(trial: FrozenTrial) -> bool | None:
    if not trial.state.is_finished():
        return None
    return trial.state == TrialState.PRUNED or bool(trial.user_attrs.get(PRUNED))


def _tried(trial: FrozenTrial, name: str) -> Any:
    # One that is to be done again knows its values before it has begun.
    return trial.params.get(name, trial.system_attrs.get("fixed_params", {}).get(name))


def _column(values: list[Any], parameter: Parameter) -> pa.Array:
    if parameter.kind == "float":
        return pa.array(values, pa.float64())
    if parameter.kind == "int":
        return pa.array(values, pa.int64())
    kinds = {type(choice) for choice in parameter.stored_choices}
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _reason(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str | None:
    """Why a trial failed."""
    if trial.state != TrialState.FAIL:
        return None
    reason: str | None = trial.user_attrs.get(REASON)
    if reason is None and any(t.user_attrs.get(REPEATS) == trial.number for t in trials):
        return "its process no longer reported"
    return reason


def _time(time: Any) -> str | None:
    return None if time is None else time.strftime(_TIMES)


def _seconds(trial: FrozenTrial) -> float | None:
    duration = trial.duration
    return None if duration is None else round(duration.total_seconds(), 3)


def summary(study: optuna.Study) -> dict[str, Any]:
    """How many trials have come to which end, and the best of them, for the record."""
    best = best_trial(study)
    return {
        "trials": dict(Counter(trial.state.name for trial in study.get_trials(deepcopy=False))),
        "best_trial": None if best is None else best.number,
        "best_validation_loss": None if best is None else best.value,
        "best_params": None if best is None else best.params,
    }


def check_not_all_failed(study: optuna.Study, table: Path) -> None:
    """See that a study has come to something, or may yet.

    Args:
        study: The study.
        table: Where its table is.

    Raises:
        TrialsFailedError: If every trial has failed, with the reason.
    """
    trials = [
        trial for trial in study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs
    ]
    if not trials or any(trial.state != TrialState.FAIL for trial in trials):
        return
    n = "the only trial" if len(trials) == 1 else f"all {len(trials)} trials"
    raise TrialsFailedError(
        f"{n} of the study failed; the last because of: {trials[-1].user_attrs.get(REASON)}. What "
        f"was tried is in {table}."
    )


@dataclass(frozen=True)
class StudyResult(RunResult):
    """What a study has found by now, and where it is.

    ``best_loss`` is the value of the best trial; ``best_epoch`` is the epoch that reached it.

    Attributes:
        study: Optuna's study, with all of its trials.
        best_number: The number of the best trial; None if none has been completed.
        best_params: The values that it tried, by the names of the parameters.
        best_args: Its arguments for data and training.
        best_model_args: Its arguments of the model.
    """

    study: optuna.Study | None = None
    best_number: int | None = None
    best_params: dict[str, Any] = field(default_factory=dict)
    best_args: DataTrainingArguments | None = None
    best_model_args: ModelArguments | None = None

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The table of all trials, read when first asked for."""
        return load_results(self.output_dir / OPTIMIZATION_RESULTS)


def study_result(
    study: optuna.Study,
    parameters: Sequence[Parameter],
    model_args: ModelArguments,
    args: DataTrainingArguments,
    output_dir: Path,
) -> StudyResult:
    """What a study has found by now, which is also said.

    Args:
        study: The study.
        parameters: What it searches for.
        model_args: The arguments of the model, without a study.
        args: Those for data and training, with the seed of its trials.
        output_dir: Where its table is.
    """
    best = best_trial(study)
    if best is None:
        say("the study has no best trial yet.")
        return StudyResult(output_dir, study=study)
    values = {p: p.value_of(best.params[p.name]) for p in parameters}
    shown = ", ".join(f"{p.name} {best.params[p.name]}" for p in parameters)
    say(f"best trial: {best.number}, validation loss {best.value:.4f} ({shown})")
    return StudyResult(
        output_dir,
        best.value,
        best.user_attrs.get(BEST_EPOCH),
        study=study,
        best_number=best.number,
        best_params={p.name: value for p, value in values.items()},
        best_args=with_values(args, {p.place: value for p, value in values.items()}),
        best_model_args=with_model_values(
            model_args, {p.place: value for p, value in values.items()}
        ),
    )


def best_run_args(result: StudyResult) -> tuple[ModelArguments, DataTrainingArguments] | None:
    """The arguments of the best trial's run, if it is for this process to do.

    Its directory is ``best_trial`` in the study's. If that has the run of another trial, which was
    the best before the study was gone on with, it is ``best_trial_`` and the number.

    Args:
        result: What the study has found.

    Returns:
        Its arguments, with the directory, which has been made, or has that run as somebody has
        stopped it. None if no trial has been completed, if others are still under way, or if
        another process does the run or has done it.
    """
    assert result.study is not None
    if result.best_args is None or result.best_model_args is None:
        return None
    if result.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        say("the best trial is not run again yet: trials are still under way in other processes.")
        return None
    for name in (BEST_TRIAL, f"{BEST_TRIAL}_{result.best_number}"):
        directory = result.output_dir / name
        args = with_values(result.best_args, {("output_dir",): str(directory)})
        if _make(directory):
            return result.best_model_args, args
        if _is_same_run(directory, result.best_model_args, args):
            if _is_stopped(directory):
                say(f"the run of the best trial in {directory} continues.")
                return result.best_model_args, args
            say(f"the best trial has already been run again: {directory}")
            return None
    say(f"the best trial is not run again: {directory} exists already.")
    return None


def _make(directory: Path) -> bool:
    """Make a directory, unless it is there; of several processes one succeeds."""
    try:
        directory.mkdir()
    except FileExistsError:
        return False
    return True


def _is_same_run(directory: Path, model_args: ModelArguments, args: DataTrainingArguments) -> bool:
    import yaml

    path = directory / CONFIG_YAML
    if not path.exists():
        return True  # another process has just begun with it
    mine = config_dict(model_args, args, OptimizationArguments())
    try:
        return bool(yaml.safe_load(path.read_bytes()) == mine)
    except (yaml.YAMLError, ValueError, RecursionError):  # somebody has written into it
        return False


def _is_stopped(directory: Path) -> bool:
    """Whether a run was begun, is not finished, and nobody is at it."""
    try:
        finished = EarlierRun.read(directory).is_finished
    except UserError:
        return False  # its process has just begun with it
    return not finished and not RunLock(directory).is_held()
