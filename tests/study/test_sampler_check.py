"""What a sampler cannot do is told before there is a study."""

from __future__ import annotations

import sys

import pytest
from optuna import samplers
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import finetune_lm
from finetune_lm import ModelArguments, UserError
from finetune_lm.study.sampler_check import check_sampler
from studies import data_args, study_args

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


@pytest.fixture(autouse=True)
def without_cmaes(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)


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
