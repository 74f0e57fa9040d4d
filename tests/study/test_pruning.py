from __future__ import annotations

import optuna
import pytest
from optuna import pruners, samplers

from finetune_lm.study.pruning import counts_as_completed

pytestmark = pytest.mark.filterwarnings("ignore")

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


@pytest.mark.parametrize("case", range(len(CASES)))
def test_whether_a_pruned_trial_counts_as_completed(case):
    sampler, pruner, expected = CASES[case]
    assert counts_as_completed(sampler, pruner) is expected


@pytest.mark.parametrize(("considers", "expected"), [(True, False), (False, True)])
def test_cma_es_can_do_either(considers, expected):
    sampler = samplers.CmaEsSampler.__new__(samplers.CmaEsSampler)
    sampler._consider_pruned_trials = considers
    assert counts_as_completed(sampler, pruners.NopPruner()) is expected


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
