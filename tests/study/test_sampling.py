"""What is proposed follows from the seed and the trial's number."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import (
    GPSampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from finetune_lm.study.lost_trials import WORKER
from finetune_lm.study.sampling import StudySampler
from finetune_lm.study.workers import Worker

MAKE = {
    "random": lambda: RandomSampler(),
    "tpe": lambda: TPESampler(n_startup_trials=2),
    "gp": lambda: GPSampler(n_startup_trials=2),
    "nsga2": lambda: NSGAIISampler(population_size=3),
    "partly fixed": lambda: PartialFixedSampler({"y": 0.5}, RandomSampler()),
    "gp on qmc": lambda: GPSampler(independent_sampler=QMCSampler(seed=1, scramble=True)),
}


def objective(trial):
    x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", 0, 1)
    return (x - 1) ** 2 + y


def study(sampler, seed, storage=None):
    made = optuna.create_study(
        storage=storage, study_name="s", sampler=StudySampler(sampler, seed), load_if_exists=True
    )
    made.set_user_attr("seed", seed)
    return made


def proposed(study):
    return [trial.params["x"] for trial in study.trials]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKE)
def test_the_same_seed_proposes_the_same_and_another_does_not(name):
    studies = [study(MAKE[name](), seed) for seed in (3, 3, 4)]
    for each in studies:
        each.optimize(objective, n_trials=6)
    one, same, other = map(proposed, studies)
    assert one == same
    if name != "nsga2":  # which may take over a value
        assert len(set(one)) == 6
    if name != "gp on qmc":  # whose points follow from its own seed
        assert not set(one) & set(other)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"])
def test_a_study_that_is_gone_on_with_proposes_what_it_would_have(name):
    """Without a seed for each trial it would propose its first points again."""
    whole = study(MAKE[name](), 3)
    whole.optimize(objective, n_trials=6)
    storage = optuna.storages.InMemoryStorage()
    for n_trials in (2, 3, 1):
        in_parts = study(MAKE[name](), 3, storage)
        in_parts.optimize(objective, n_trials=n_trials)
    assert proposed(in_parts) == proposed(whole)


def test_two_processes_with_one_seed_do_not_propose_the_same():
    storage = optuna.storages.InMemoryStorage()
    one, other = (study(RandomSampler(seed=3), 3, storage) for _ in range(2))
    trials = [each.ask() for _ in range(3) for each in (one, other)]
    assert len({trial.suggest_float("x", 0, 1) for trial in trials}) == 6
    # Optuna's own sampler would.
    one, other = (RandomSampler(seed=3) for _ in range(2))
    assert one._rng.rng.rand() == other._rng.rng.rand()


def test_a_trial_says_whose_it_is_before_its_values_are_chosen():
    seen = []

    class Spy(RandomSampler):
        def infer_relative_search_space(self, study, trial):
            seen.append(study.get_trials()[-1].user_attrs)
            return {}

    study(Spy(), 1).ask().suggest_float("x", 0, 1)
    [attrs] = seen
    assert Worker.of(attrs[WORKER]) == Worker.this()


def test_everything_else_is_passed_on():
    grid = optuna.samplers.GridSampler({"x": [1.0, 2.0, 3.0], "y": [0.5]})
    made = study(grid, 1)
    made.optimize(objective)  # the grid itself ends it
    assert sorted(proposed(made)) == [1.0, 2.0, 3.0]
