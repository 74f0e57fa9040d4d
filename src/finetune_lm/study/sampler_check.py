"""Whether a sampler can propose values for what is searched for, before there is a study."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler

from finetune_lm.errors import UserError, first_line
from finetune_lm.study.parameters import Parameter

_EXTRAS = {"cmaes": "finetune-lm[cmaes]"}


def check_sampler(
    sampler: BaseSampler, parameters: Sequence[Parameter], n_trials: int | None
) -> None:
    """Let a copy of a sampler propose the first trials of a study that is kept nowhere.

    Args:
        sampler: The sampler.
        parameters: What is searched for.
        n_trials: How many trials there will be; None for no limit.

    Raises:
        UserError: If it cannot.
    """
    try:
        tried = copy.deepcopy(sampler)
    except Exception:  # one of a user's, with something in it of which there is only one
        return
    if isinstance(tried, CmaEsSampler):
        tried._n_startup_trials = 1  # the trials before are random, and need nothing

    def objective(trial: optuna.Trial) -> float:
        for parameter in parameters:
            parameter.suggest(trial)
        return float(trial.number)

    name = f"study_kwargs.sampler {type(sampler).__name__}"
    try:
        # Many samplers draw the first trial at random.
        study = optuna.create_study(sampler=tried)
        study.optimize(objective, n_trials=2 if n_trials is None else min(n_trials, 2))
    except UserError:
        raise
    except ImportError as error:
        package = error.name or "a package"
        raise UserError(
            f"{name} needs {package}, which is not installed: "
            f"pip install '{_EXTRAS.get(package, package)}'"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{name} cannot propose values for these params: {first_line(error)}"
        ) from error
