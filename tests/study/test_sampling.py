"""Samplers and pruners: what they propose, what they cannot do, what a pruned trial counts as."""

from __future__ import annotations

import sys

import optuna
import pytest
from optuna import pruners, samplers
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import (
    GPSampler,
    NSGAIISampler,
    PartialFixedSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

import finetune_lm
from finetune_lm import ModelArguments, UserError
from finetune_lm.study.sampling import StudySampler, check_sampler, counts_as_completed
from finetune_lm.study.workers import WORKER, Worker
from studies import data_args, study_args

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


FLOAT, STEPS = FloatDistribution(0.0, 1.0), FloatDistribution(0.0, 1.0, step=0.5)
INT, CHOICE = IntDistribution(1, 3), CategoricalDistribution(["a", "b"])


class Searched:
    """What a study searches for, as far as a sampler sees it."""

    def __init__(self, name, distribution):
        self.name, self.distribution = name, distribution

    def suggest(self, trial):
        return trial._suggest(self.name, self.distribution)


def searched(**distributions):
    return [Searched(name, distribution) for name, distribution in distributions.items()]


class NeedsPackage(samplers.RandomSampler):
    def sample_relative(self, study, trial, search_space):
        import a_package_that_is_not_there  # noqa: F401


class Leaves(samplers.RandomSampler):
    def before_trial(self, study, trial):
        raise SystemExit(0)


class Broken(samplers.RandomSampler):
    def sample_independent(self, *args):
        return {}["what it wants"]


class FailsLate(samplers.RandomSampler):
    def after_trial(self, *args):
        raise RuntimeError("It cannot go on.")


BAD = {
    "a grid without a parameter": (
        samplers.GridSampler({"x": [0.5]}),
        searched(x=FLOAT, y=INT),
        "GridSampler cannot propose values for these params: The parameter name, y, is not found",
    ),
    "a grid for nothing that is searched for": (
        samplers.GridSampler({"z": [0.5]}),
        searched(x=FLOAT),
        "GridSampler cannot propose values",
    ),
    "brute force without a step": (
        samplers.BruteForceSampler(),
        searched(x=FLOAT),
        "BruteForceSampler cannot propose values for these params: FloatDistribution.step must be",
    ),
    "a package of Optuna's": (
        samplers.CmaEsSampler(n_startup_trials=9),
        searched(x=FLOAT, y=FLOAT),
        r"CmaEsSampler needs cmaes, .* pip install 'finetune-lm\[cmaes\]'",
    ),
    "a package of the user's": (
        NeedsPackage(),
        searched(x=FLOAT),
        "NeedsPackage needs a_package_that_is_not_there, which is not installed: pip install 'a_p",
    ),
    "broken": (Broken(), searched(x=FLOAT), "Broken cannot propose values .*: 'what it wants'"),
    "ends the program": (Leaves(), searched(x=FLOAT), "Leaves cannot propose values"),
    "breaks after a trial": (FailsLate(), searched(x=FLOAT), "FailsLate .*: It cannot go on."),
}


@pytest.fixture
def without_cmaes(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)


@pytest.mark.usefixtures("without_cmaes")
@pytest.mark.parametrize("case", BAD)
def test_what_a_sampler_cannot_do(case):
    sampler, parameters, message = BAD[case]
    with pytest.raises(UserError, match=message):
        check_sampler(sampler, parameters, None)


GOOD = {
    "grid": (samplers.GridSampler({"x": [0.5], "y": [1, 2]}), searched(x=FLOAT, y=INT)),
    "a grid of one": (samplers.GridSampler({"x": [0.5]}), searched(x=FLOAT)),
    "brute force": (samplers.BruteForceSampler(), searched(x=STEPS, y=INT, z=CHOICE)),
    "TPE": (samplers.TPESampler(), searched(x=FLOAT, y=INT, z=CHOICE)),
    "GP": (samplers.GPSampler(), searched(x=FLOAT, y=INT, z=CHOICE)),
    "NSGA-II": (samplers.NSGAIISampler(), searched(x=FLOAT, z=CHOICE)),
    "QMC": (samplers.QMCSampler(), searched(x=FLOAT, y=INT)),
    "partly fixed": (
        samplers.PartialFixedSampler({"x": 0.5}, samplers.RandomSampler()),
        searched(x=FLOAT, y=INT),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", GOOD)
def test_what_samplers_can_do(case, monkeypatch):
    sampler, parameters = GOOD[case]
    before = repr(vars(sampler))
    check_sampler(sampler, parameters, None)
    assert repr(vars(sampler)) == before


def test_no_more_is_tried_than_there_will_be():
    class Once(samplers.RandomSampler):
        def before_trial(self, study, trial):
            assert trial.number == 0

    check_sampler(Once(), searched(x=FLOAT), 1)


def test_one_of_which_there_is_only_one_is_not_tried():
    class Single(samplers.RandomSampler):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

        def before_trial(self, study, trial):
            raise AssertionError

    check_sampler(Single(), searched(x=FLOAT), None)


def test_nothing_is_loaded_or_written_before(tmp_path):
    study = study_args(
        study_kwargs={
            "sampler": samplers.GridSampler,
            "sampler_kwargs": {"search_space": {"x": [1]}},
        }
    )
    with pytest.raises(UserError, match="GridSampler cannot propose"):
        finetune_lm.run(ModelArguments("not-there"), data_args(tmp_path), study)
    assert not (tmp_path / "out").exists()


WILCOXON = pruners.WilcoxonPruner()
CASES = [
    (samplers.GPSampler(), pruners.MedianPruner(), True),
    (samplers.NSGAIISampler(), pruners.MedianPruner(), True),
    (samplers.NSGAIIISampler(), pruners.MedianPruner(), True),
    (samplers.PartialFixedSampler({"x": 1}, samplers.GPSampler()), pruners.MedianPruner(), True),
    (samplers.TPESampler(), pruners.MedianPruner(), False),
    (samplers.TPESampler(), WILCOXON, True),
    (samplers.RandomSampler(), pruners.PatientPruner(WILCOXON, patience=1), True),
    (samplers.RandomSampler(), pruners.PatientPruner(None, patience=1), False),
    (samplers.RandomSampler(), pruners.HyperbandPruner(), False),
    (samplers.QMCSampler(), pruners.NopPruner(), False),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", range(len(CASES)))
def test_whether_a_pruned_trial_counts_as_completed(case):
    sampler, pruner, expected = CASES[case]
    assert counts_as_completed(sampler, pruner) is expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("considers", "expected"), [(True, False), (False, True)])
def test_cma_es_can_do_either(considers, expected):
    sampler = samplers.CmaEsSampler.__new__(samplers.CmaEsSampler)
    sampler._consider_pruned_trials = considers
    assert counts_as_completed(sampler, pruners.NopPruner()) is expected


@pytest.mark.filterwarnings("ignore")
def test_the_gaussian_process_learns_nothing_from_pruned_trials():
    """What the choice above rests on, as Optuna is today."""
    seen = []

    class Spy(samplers.GPSampler):
        def _sample_relative_impl(self, study, completed, running, space):
            seen.append([trial.number for trial in completed])
            return {}

    study = optuna.create_study(sampler=Spy(n_startup_trials=1))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, 0)
        if trial.number % 2:
            raise optuna.TrialPruned
        return x

    study.optimize(objective, n_trials=5)
    assert seen[-1] == [0, 2]
