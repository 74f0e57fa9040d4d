"""What can be found wrong with the arguments of a study without importing Optuna."""

from __future__ import annotations

from typing import Any

from finetune_lm.arguments.checking import show
from finetune_lm.arguments.nearest import did_you_mean

MADE_OF_CLASSES = ("sampler", "pruner", "storage")
STUDY_KEYS = (
    "study_name",
    *MADE_OF_CLASSES,
    *(f"{name}_kwargs" for name in MADE_OF_CLASSES),
    "direction",
    "load_if_exists",
)
OPTIMIZE_KEYS = (
    *("n_trials", "timeout", "n_jobs", "catch", "callbacks", "callbacks_kwargs"),
    *("gc_after_trial", "show_progress_bar"),
)
DIRECTIONS = ("minimize", "maximize")


def study_problems(study_kwargs: dict[str, Any], optimize_kwargs: dict[str, Any]) -> list[str]:
    """Return a message for each value that Optuna could not use, or not in this program."""
    return [*_study_problems(study_kwargs), *_optimize_problems(optimize_kwargs)]


def direction_of(study_kwargs: dict[str, Any]) -> str:
    """Return `minimize` or `maximize`, also where Optuna's own constant is given in Python."""
    direction = study_kwargs.get("direction")
    if direction is None:
        return DIRECTIONS[0]
    name = getattr(direction, "name", direction)
    return name.lower() if isinstance(name, str) else str(name)


def _study_problems(kwargs: dict[str, Any]) -> list[str]:
    problems = []
    for key in kwargs:
        if key == "directions":
            problems.append(
                "study_kwargs.directions cannot be used: a study has one objective here, the "
                "validation loss. Give study_kwargs.direction."
            )
        elif key not in STUDY_KEYS:
            problems.append(
                f"study_kwargs.{key} does not exist; the keys of study_kwargs are "
                f"{', '.join(STUDY_KEYS)}.{did_you_mean(key, STUDY_KEYS, 'study_kwargs.')}"
            )
    direction = direction_of(kwargs)
    if direction not in DIRECTIONS:
        problems.append(
            f"study_kwargs.direction must be minimize or maximize but got "
            f"{show(kwargs['direction'])}.{did_you_mean(direction, DIRECTIONS)}"
        )
    name = kwargs.get("study_name")
    if name is not None and (not isinstance(name, str | int | float) or not str(name).strip()):
        problems.append(f"study_kwargs.study_name must be text but got {show(name)}.")
    problems += _kind_problem("study_kwargs", "load_if_exists", kwargs, bool, "True or False")
    for name in MADE_OF_CLASSES:
        problems += _kind_problem(
            "study_kwargs", f"{name}_kwargs", kwargs, dict, "a dictionary of keyword arguments"
        )
    return problems


def _optimize_problems(kwargs: dict[str, Any]) -> list[str]:
    problems = [
        f"optimize_kwargs.{key} does not exist; the keys of optimize_kwargs are "
        f"{', '.join(OPTIMIZE_KEYS)}.{did_you_mean(key, OPTIMIZE_KEYS, 'optimize_kwargs.')}"
        for key in kwargs
        if key not in OPTIMIZE_KEYS
    ]
    n_trials, timeout = kwargs.get("n_trials"), kwargs.get("timeout")
    if n_trials is not None and (not _is_number(n_trials, int) or n_trials < 1):
        problems.append(
            f"optimize_kwargs.n_trials must be an integer, at least 1, or None but got "
            f"{show(n_trials)}."
        )
    if timeout is not None and not (_is_number(timeout, int | float) and timeout > 0):
        problems.append(
            f"optimize_kwargs.timeout must be a number of seconds above 0 or None but got "
            f"{show(timeout)}."
        )
    if kwargs.get("n_jobs", 1) != 1:
        problems.append(
            f"optimize_kwargs.n_jobs must be 1, because the trials of a process share a model, but "
            f"got {show(kwargs['n_jobs'])}. Start the same command several times instead."
        )
    for key in ("gc_after_trial", "show_progress_bar"):
        problems += _kind_problem("optimize_kwargs", key, kwargs, bool, "True or False")
    problems += _kind_problem(
        "optimize_kwargs", "callbacks_kwargs", kwargs, dict, "a dictionary of keyword arguments"
    )
    return problems


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _kind_problem(
    dictionary: str, key: str, kwargs: dict[str, Any], kind: type, expected: str
) -> list[str]:
    value = kwargs.get(key)
    if value is None or isinstance(value, kind):
        return []
    return [f"{dictionary}.{key} must be {expected} but got {show(value)}."]
