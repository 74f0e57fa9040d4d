"""Whether and how hyperparameters are searched for."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.declared import option
from finetune_lm.arguments.references import default_object, resolve_references


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

    do_optimize: bool = option(False, "Search for hyperparameters instead of doing one run.")
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
        "beside it as X_kwargs. Without a study_name one is made up.",
    )
    optimize_kwargs: dict[str, Any] = option(
        {"n_trials": 2, "gc_after_trial": True, "show_progress_bar": False},
        "Keyword arguments for the study's optimize method.",
    )
    params: dict[str, dict[str, Any]] = option(
        {"lr": {"values": [2e-6, 2e-5], "suggest_kwargs": {}}},
        "What is searched for: under the name of any argument for data and training, `values` (the "
        "choices, or the lower and upper end of a range of numbers), `suggest_kwargs` for the "
        "trial's suggest method, and `type` (int or float) where it differs from the default's. "
        "Example: --params.lr.values 1e-5 1e-4",
    )

    def resolve(self) -> None:
        """Import the classes and functions that are still dotted names.

        Raises:
            UserError: If one of them does not exist.
        """
        for field in fields(self):
            setattr(self, field.name, resolve_references(getattr(self, field.name)))
