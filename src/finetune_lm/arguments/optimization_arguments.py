"""Whether and how hyperparameters are searched for; what shows to be wrong without Optuna."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.checking import minimum_problem, show
from finetune_lm.arguments.declared import Affects, option
from finetune_lm.arguments.references import default_object, resolve_references
from finetune_lm.arguments.suggestions import did_you_mean

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


@dataclass(repr=False)
class OptimizationArguments(Arguments):
    """The search for hyperparameters with Optuna.

    Classes stay references until `resolve` is called, so that a run without a study does not
    import Optuna.

    Example:
        >>> args = OptimizationArguments(do_optimize=True, optimize_kwargs={"n_trials": 100})
        >>> args.resolve()
    """

    resolves_at_once: ClassVar[bool] = False

    do_optimize: bool = option(
        False, "Search for hyperparameters instead of doing one run.", affects=Affects.LEARNING
    )
    study_kwargs: dict[str, Any] = option(
        {
            "study_name": None,
            "sampler": default_object("optuna.samplers.GPSampler"),
            "sampler_kwargs": {"deterministic_objective": True},
            "pruner": default_object("optuna.pruners.PatientPruner"),
            "pruner_kwargs": {
                "wrapped_pruner": default_object("optuna.pruners.WilcoxonPruner"),
                "wrapped_pruner_kwargs": {"p_threshold": 0.1, "n_startup_steps": 100},
                "patience": 30,
                "min_delta": 0.0,
            },
            "direction": "minimize",
        },
        "Keyword arguments for optuna.create_study. A class X in it is made with the kwargs "
        "beside it as X_kwargs, at any depth. Without a study_name, one is made from the model, "
        "the data and the parameters. storage may also be a database's URL or the path of a "
        "journal; by default it is a journal in the output directory. load_if_exists continues "
        "an existing study.",
        affects=Affects.RECORD,
    )
    optimize_kwargs: dict[str, Any] = option(
        {"n_trials": 2, "gc_after_trial": True, "show_progress_bar": False},
        "Keyword arguments for the study's optimize method. n_trials is the number of trials of "
        "this process.",
        affects=Affects.RECORD,
    )
    params: dict[str, dict[str, Any]] = option(
        {"lr": {"values": [2e-6, 2e-5], "suggest_kwargs": {}}},
        "What to search for: under the name of any argument for data and training, `values` (the "
        "choices, or the lower and upper end of a range of numbers), `suggest_kwargs` for the "
        "trial's suggest method (log, step), and `type` (int or float, or categorical for "
        "choices of numbers) where it differs from the default's. Example: --params.lr.values "
        "1e-5 1e-4 --params.lr.suggest_kwargs.log True",
        affects=Affects.LEARNING,
    )
    max_trials: int | None = option(
        None,
        "Maximum number of trials of the study, over all processes. Trials that were cut off and "
        "repeated count once.",
        affects=Affects.RECORD,
        default_text="no limit but n_trials of each process",
    )
    keep_best_trial: bool = option(
        False,
        "When the search is over, run the best trial again in full, with its tables and its "
        "model, in the directory best_trial.",
        affects=Affects.RECORD,
    )

    def resolve(self) -> None:
        """Import the classes and functions that are still dotted names.

        Raises:
            UserError: If one of them does not exist.
        """
        for field in fields(self):
            setattr(self, field.name, resolve_references(getattr(self, field.name)))

    def _range_problems(self) -> list[str]:
        problems = study_problems(self.study_kwargs, self.optimize_kwargs)
        problems += minimum_problem("max_trials", self.max_trials, 1)
        if not self.params:
            problems.append("params must have at least one parameter to search for.")
        return problems


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
