"""Whether and how hyperparameters are searched for."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from finetune_lm.arguments.base import Arguments, minimum_problem
from finetune_lm.arguments.declared import Affects, option
from finetune_lm.arguments.references import default_object, resolve_references
from finetune_lm.arguments.study_problems import study_problems


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
        "Keyword arguments for optuna.create_study. A class X in it is made with the kwargs found "
        "beside it as X_kwargs, at any depth. Without a study_name one is made of the model, the "
        "data and the parameters. storage may also be a database's URL or the path of a journal; "
        "by default it is a journal in the output directory. load_if_exists goes on with a study "
        "that is there already.",
        affects=Affects.RECORD,
    )
    optimize_kwargs: dict[str, Any] = option(
        {"n_trials": 2, "gc_after_trial": True, "show_progress_bar": False},
        "Keyword arguments for the study's optimize method. n_trials is how many trials this "
        "process does.",
        affects=Affects.RECORD,
    )
    params: dict[str, dict[str, Any]] = option(
        {"lr": {"values": [2e-6, 2e-5], "suggest_kwargs": {}}},
        "What is searched for: under the name of any argument for data and training, `values` (the "
        "choices, or the lower and upper end of a range of numbers), `suggest_kwargs` for the "
        "trial's suggest method (log, step), and `type` (int or float, or categorical for choices "
        "of numbers) where it differs from the default's. "
        "Example: --params.lr.values 1e-5 1e-4 --params.lr.suggest_kwargs.log True",
        affects=Affects.LEARNING,
    )
    max_trials: int | None = option(
        None,
        "How many trials the study has at most, in all processes together. Trials that were cut "
        "off and are repeated count once.",
        affects=Affects.RECORD,
        default_text="no limit but n_trials of each process",
    )
    keep_best_trial: bool = option(
        False,
        "When the search is over, do the run of the best trial again in full, with its table and "
        "its model, in the directory best_trial.",
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
