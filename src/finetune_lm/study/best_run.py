"""The run of the best trial, done again in full when the search is over."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
)
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.messages import say
from finetune_lm.runs.directory import BEST_TRIAL
from finetune_lm.study.study_result import StudyResult
from finetune_lm.study.trial_arguments import with_values


def best_run_args(result: StudyResult, model_args: ModelArguments) -> DataTrainingArguments | None:
    """The arguments of the best trial's run, if it is for this process to do.

    Its directory is ``best_trial`` in the study's. If that has the run of another trial, which was
    the best before the study was gone on with, it is ``best_trial_`` and the number.

    Args:
        result: What the study has found.
        model_args: The model.

    Returns:
        The arguments with the directory, which has been made. None if no trial has been completed,
        if others are still under way, or if another process does the run or has done it.
    """
    assert result.study is not None
    if result.best_args is None:
        return None
    if result.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        say("the best trial is not run again yet: trials are still under way in other processes.")
        return None
    directory = result.output_dir / BEST_TRIAL
    args = with_values(result.best_args, {("output_dir",): str(directory)})
    if not _make(directory):
        if _is_same_run(directory, model_args, args):
            say(f"the best trial has been run again before: {directory}")
            return None
        directory = result.output_dir / f"{BEST_TRIAL}_{result.best_number}"
        args = with_values(result.best_args, {("output_dir",): str(directory)})
        if not _make(directory):
            say(f"the best trial is not run again: {directory} is there already.")
            return None
    return args


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
