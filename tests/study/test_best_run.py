"""The best trial, done again as a single run."""

from __future__ import annotations

import json

import optuna
import pytest

import finetune_lm
from finetune_lm.arguments import DELETE_FIELD
from studies import data_args, run_study, study_args

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_the_best_trial_is_run_again_in_full(model, tmp_path, capsys):
    args = data_args(tmp_path, test_file=["not/there.txt"])
    kwargs = {"load_if_exists": True}
    study = study_args(3, keep_best_trial=True, study_kwargs=kwargs)
    result = run_study(model, args, study)
    best_dir = result.output_dir / "best_trial"
    assert sorted(path.name for path in best_dir.iterdir()) == [
        *("config.txt", "config.yaml", "loss_curves.pdf", "metrics.csv.gz", "model", "run.json"),
        "tokenizer",
    ]
    record = json.loads((best_dir / "run.json").read_text())
    assert record["best_validation_loss"] == result.best_loss
    metrics = finetune_lm.load_metrics(best_dir)
    assert set(metrics["seed"]) == {5}
    saved = best_dir / "model" / "model.safetensors"
    before = saved.stat().st_mtime_ns

    # Gone on with, it is not run again unless another trial is the best now.
    study = study_args(1, keep_best_trial=True, study_kwargs=kwargs)
    capsys.readouterr()
    again = run_study(model, args, study)
    assert saved.stat().st_mtime_ns == before
    others = list(result.output_dir.glob("best_trial_*"))
    if again.best_number == result.best_number:
        assert "the best trial has been run again before" in capsys.readouterr().err
        assert others == []
    else:
        assert [path.name for path in others] == [f"best_trial_{again.best_number}"]


class _Fixed(optuna.samplers.RandomSampler):
    def __init__(self, values):
        super().__init__(0)
        self._values = values

    def sample_independent(self, study, trial, name, distribution):
        return self._values[trial.number]


def test_another_best_trial_has_a_directory_of_its_own(model, tmp_path):
    kwargs = {"load_if_exists": True, "sampler_kwargs": DELETE_FIELD}
    args = data_args(tmp_path)
    for number, sampler in enumerate((_Fixed([1e-4]), _Fixed([1e-4, 1e-2]))):
        study = study_args(1, keep_best_trial=True, study_kwargs={**kwargs, "sampler": sampler})
        result = run_study(model, args, study)
        assert result.best_number == number
    assert sorted(path.name for path in result.output_dir.glob("best_*")) == [
        *("best_trial", "best_trial_1"),
    ]
    record = json.loads((result.output_dir / "best_trial_1" / "run.json").read_text())
    assert record["best_validation_loss"] == result.best_loss
