"""The sampler and the pruner of a study: made, tried before there is a study, and seeded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna import pruners, samplers
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.samplers._lazy_random_state import LazyRandomState

from finetune_lm.arguments.checking import show
from finetune_lm.arguments.references import short_name
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError, first_line, users_code
from finetune_lm.study.objects import make_object
from finetune_lm.study.parameters import Parameter
from finetune_lm.study.workers import WORKER, Worker

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


_EXTRAS = {"cmaes": "finetune-lm[cmaes]"}
# They look at completed trials alone (optuna 5.0.0: samplers/_gp/sampler.py, sample_relative;
# samplers/_ga/_base.py, get_population).
_LEARN_FROM_COMPLETED_ONLY = (
    samplers.GPSampler,
    samplers.NSGAIISampler,
    samplers.NSGAIIISampler,
)


def make_sampler(study_kwargs: dict[str, Any], seed: int) -> BaseSampler:
    """The sampler that ``study_kwargs`` names, seeded unless it says how.

    Raises:
        UserError: If it cannot be made, or is no sampler.
    """
    kinds = (BaseSampler, "TPESampler", samplers.__all__)
    made = _object_of("sampler", study_kwargs, kinds, {"seed": int(seed)})
    return made or samplers.TPESampler(seed=int(seed))


def make_pruner(study_kwargs: dict[str, Any]) -> BasePruner:
    """The pruner that ``study_kwargs`` names.

    Raises:
        UserError: If it cannot be made, or is no pruner.
    """
    kinds = (BasePruner, "MedianPruner", pruners.__all__)
    return _object_of("pruner", study_kwargs, kinds, {}) or pruners.MedianPruner()


def sampler_seed(study_kwargs: dict[str, Any], seed: int) -> int:
    """What the proposals of a study follow from: the sampler's seed, or that of the run."""
    given = (study_kwargs.get("sampler_kwargs") or {}).get("seed")
    return int(given) if isinstance(given, int) and given >= 0 else int(seed)


def _object_of(
    name: str,
    study_kwargs: dict[str, Any],
    kinds: tuple[type, str, Sequence[str]],
    more: dict[str, Any],
) -> Any:
    """The object that ``study_kwargs`` has under a name; None if it has none, for Optuna's own.

    Args:
        name: ``sampler`` or ``pruner``.
        study_kwargs: The study's keyword arguments.
        kinds: What the object must be, one of Optuna's for an example, and all of them.
        more: What the class is given if it takes it.
    """
    where = f"study_kwargs.{name}"
    value, kwargs = study_kwargs.get(name), study_kwargs.get(f"{name}_kwargs") or {}
    if value is None:
        return None
    kind, example, known = kinds
    # A class of another kind is not called: it could do anything.
    is_other = isinstance(value, type) and not issubclass(value, kind)
    made = value if is_other else make_object(value, kwargs, where, more)
    if not isinstance(made, kind):
        names = [f"optuna.{name}s.{each}" for each in known]
        given = f"optuna.{name}s.{value}" if isinstance(value, str) else short_name(value)
        raise UserError(
            f"{where} must be a class like optuna.{name}s.{example} but got {show(value)}."
            f"{did_you_mean(given, names)}"
        )
    return made


class StudySampler(BaseSampler):  # type: ignore[misc]
    """Passes everything on to another sampler, and does two things before each trial.

    It seeds the other's random numbers from the seed and the trial's number. Several processes that
    work at one study with one seed would otherwise all propose the same points, and a study that is
    taken up again those it had before.

    And it writes down which process does the trial, at the first moment that there is one, so that
    other processes can find out whether it lives.

    Attributes:
        wrapped: The sampler that chooses.

    Args:
        sampler: The sampler that chooses.
        seed: What the random numbers follow from.
    """

    def __init__(self, sampler: BaseSampler, seed: int) -> None:
        self.wrapped = sampler
        self._seed = seed
        self._name = f"study_kwargs.sampler {type(sampler).__name__}"

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Mark the trial as this process's, and seed."""
        study._storage.set_trial_user_attr(trial._trial_id, WORKER, Worker.this().describe())
        seed_sampler(self.wrapped, self._seed, trial.number)
        with users_code(self._name):
            self.wrapped.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the other sampler says."""
        with users_code(self._name):
            space: dict[str, BaseDistribution] = self.wrapped.infer_relative_search_space(
                study, trial
            )
        return space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the other sampler says."""
        with users_code(self._name):
            sampled: dict[str, Any] = self.wrapped.sample_relative(study, trial, search_space)
        return sampled

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What the other sampler says."""
        with users_code(self._name):
            return self.wrapped.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the other sampler know."""
        with users_code(self._name):
            self.wrapped.after_trial(study, trial, state, values)


def seed_sampler(sampler: BaseSampler, *entropy: int) -> None:
    """Seed all random numbers of a sampler, and of those within it.

    Args:
        sampler: A sampler.
        *entropy: Integers of at least 0 that the random numbers follow from.
    """
    for number, state in enumerate(_random_states(sampler)):
        [seed] = np.random.SeedSequence([*entropy, number]).generate_state(1)
        state.rng.seed(seed)


def _random_states(sampler: BaseSampler) -> Iterator[LazyRandomState]:
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            yield value
        elif isinstance(value, BaseSampler):
            yield from _random_states(value)


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


def counts_as_completed(sampler: samplers.BaseSampler, pruner: BasePruner) -> bool:
    """Whether a trial that is pruned returns the best that it had come to, as a completed one does.

    It does with a `WilcoxonPruner`, whose documentation asks for it, alone or wrapped in another.
    It also does with a sampler that learns nothing from pruned trials: what the trial has shown
    would be lost, and the sampler would propose its neighbours again. These are `GPSampler`,
    `NSGAIISampler`, `NSGAIIISampler`, and `CmaEsSampler` unless it is made with
    ``consider_pruned_trials``. All others, such as `TPESampler`, learn from trials that are marked
    as pruned, or from none.
    """
    if any(isinstance(each, WilcoxonPruner) for each in _chain(pruner, "_wrapped_pruner")):
        return True
    for each in _chain(sampler, "_base_sampler"):
        if isinstance(each, samplers.CmaEsSampler):
            return not each._consider_pruned_trials
        if isinstance(each, _LEARN_FROM_COMPLETED_ONLY):
            return True
    return False


def _chain(outermost: Any, attribute: str) -> Iterator[Any]:
    """An object, what it wraps, what that wraps, and so on."""
    each = outermost
    while each is not None:
        yield each
        each = getattr(each, attribute, None)
