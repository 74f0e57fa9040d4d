"""The sampler of a study: Optuna's, with random numbers that follow from seed and trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState

from finetune_lm.errors import users_code
from finetune_lm.study.lost_trials import WORKER
from finetune_lm.study.workers import Worker

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


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
