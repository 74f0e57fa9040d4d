"""The table of all trials, and the best trial, done again as a single run."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from optuna.trial import TrialState

import finetune_lm
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.runs.lock import RunLock
from finetune_lm.study.parameters import Parameter
from finetune_lm.study.results import (
    BEST_EPOCH,
    N_EPOCHS,
    PRUNED,
    best_trial,
    load_results,
    results_table,
    write_results,
)
from finetune_lm.study.workers import REASON, WORKER, Worker, queue_again
from studies import Interrupt, data_args, run_study, study_args

PARAMETERS = [
    Parameter("lr", ("train_optimizer_kwargs", "lr"), "float", (1e-5, 1e-4)),
    Parameter("patience", ("patience",), "int", (1, 9)),
    Parameter(
        "train_optimizer",
        ("train_optimizer",),
        "categorical",
        choices=(torch.optim.SGD, torch.optim.AdamW),
    ),
    Parameter("shuffle_train", ("shuffle_train",), "categorical", choices=(True, False)),
    Parameter("bos_policy", ("x",), "categorical", choices=(None, 3, 'a,"b"')),
]
WORKER_7 = Worker("node7", 42, 1.0, slurm_job_id="1234_5")


def begin(study, worker=WORKER_7):
    trial = study.ask()
    trial.set_user_attr(WORKER, worker.describe())
    for parameter in PARAMETERS:
        parameter.suggest(trial)
    return trial


@pytest.fixture
def study():
    study = optuna.create_study(study_name="my study", sampler=optuna.samplers.RandomSampler(1))
    trial = begin(study)
    for key, value in ((N_EPOCHS, 8), (BEST_EPOCH, 5), (PRUNED, False)):
        trial.set_user_attr(key, value)
    study.tell(trial, 2.5)
    trial = begin(study)
    trial.set_user_attr(PRUNED, True)
    study.tell(trial, 3.5)
    trial = begin(study)
    trial.report(4.0, 0)
    study.tell(trial, state=TrialState.PRUNED)
    trial = begin(study)
    trial.set_user_attr(REASON, 'it said "no",\nand NA')
    study.tell(trial, state=TrialState.FAIL)
    queue_again(study, study.trials[3], counts=True)
    study.tell(begin(study), state=TrialState.FAIL)
    queue_again(study, study.trials[4], counts=True)
    study.ask()
    study.ask()
    study.enqueue_trial({"lr": 2e-5, "patience": 3})
    return study


def test_a_row_for_each_trial(study, tmp_path):
    path = tmp_path / "optimization_results.csv.gz"
    write_results(path, results_table(study, PARAMETERS, 11))
    frame = load_results(path)
    assert frame.columns.tolist() == [
        *("study_name", "number", "state", "value", "pruned"),
        *("lr", "patience", "train_optimizer", "shuffle_train", "bos_policy"),
        *("n_epochs", "best_epoch", "seed", "reason", "repeats"),
        *("started", "ended", "seconds", "host", "pid", "slurm_job_id"),
    ]
    assert frame["state"].tolist() == [
        *("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING", "RUNNING", "WAITING"),
    ]
    assert frame["number"].tolist() == list(range(8))
    assert frame["value"].tolist()[:3] == [2.5, 3.5, 4.0]
    assert frame["value"].isna().tolist() == [False] * 3 + [True] * 5
    # Also one that returned a value is known to have been pruned.
    assert frame["pruned"].tolist()[:5] == [False, True, True, False, False]
    for trial, (_, row) in zip(study.trials[:5], frame.iterrows(), strict=False):
        assert row["lr"] == trial.params["lr"]
        assert row["patience"] == trial.params["patience"]
        assert row["train_optimizer"] == trial.params["train_optimizer"]
        assert row["train_optimizer"] in ("torch.optim.SGD", "torch.optim.AdamW")
        assert row["shuffle_train"] == trial.params["shuffle_train"]
        bos = trial.params["bos_policy"]
        assert (pd.isna(row["bos_policy"]) and bos is None) or row["bos_policy"] == str(bos)
    assert (frame["n_epochs"][0], frame["best_epoch"][0]) == (8, 5)
    assert set(frame["seed"]) == {11}
    assert frame["reason"][3] == 'it said "no",\nand NA'
    assert frame["reason"][4] == "its process no longer reported"
    assert frame["repeats"].tolist()[4:6] == [3, 4]
    assert frame["repeats"].isna().tolist() == [True] * 4 + [False] * 2 + [True] * 2
    assert frame["host"].tolist()[:5] == ["node7"] * 5
    assert frame["pid"].tolist()[:5] == [42] * 5
    assert frame["slurm_job_id"].tolist()[:5] == ["1234_5"] * 5
    # What is to be tried again has its values before it is begun.
    assert (frame["lr"][7], frame["patience"][7]) == (2e-5, 3)
    assert frame["started"][0] == study.trials[0].datetime_start.strftime("%Y-%m-%d %H:%M:%S")
    assert (frame["seconds"][:5] >= 0).all()


def test_other_readers_see_plain_csv(study, tmp_path):
    path = tmp_path / "t.csv.gz"
    write_results(path, results_table(study, PARAMETERS, 11))
    head = gzip.decompress(path.read_bytes()).decode().splitlines()[:2]
    assert head[0].startswith('"study_name","number","state","value"')
    assert head[1].startswith('"my study",0,"COMPLETE",2.5,FALSE,')
    first = path.read_bytes()
    write_results(path, results_table(study, PARAMETERS, 11))
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv.gz"]


def test_a_parameter_with_the_name_of_a_column_is_that_column():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(1))
    seed = Parameter("seed", ("seed",), "int", (1, 10**9))
    trial = study.ask()
    seed.suggest(trial)
    study.tell(trial, 1.0)
    table = results_table(study, [seed], 5)
    assert table.column_names.count("seed") == 1
    assert table["seed"].to_pylist() == [trial.params["seed"]]


def test_an_empty_study_has_an_empty_table(tmp_path):
    study = optuna.create_study()
    write_results(tmp_path / "t.csv.gz", results_table(study, PARAMETERS, 5))
    frame = load_results(tmp_path / "t.csv.gz")
    assert len(frame) == 0
    assert "lr" in frame.columns
    assert best_trial(study) is None


def test_infinite_values(tmp_path):
    study = optuna.create_study()
    study.tell(study.ask(), math.inf)
    table = results_table(study, [], 5)
    assert table["value"].to_pylist() == [np.inf]


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
        assert "the best trial has already been run again" in capsys.readouterr().err
        assert others == []
    else:
        assert [path.name for path in others] == [f"best_trial_{again.best_number}"]


def test_a_run_of_the_best_trial_that_was_stopped_is_gone_on_with(model, tmp_path, monkeypatch):
    """As by a cluster, which starts the same command again."""
    args = data_args(tmp_path)
    study = study_args(
        None, max_trials=2, keep_best_trial=True, study_kwargs={"load_if_exists": True}
    )
    callbacks = {"model_pre_train_step_callbacks": [Interrupt]}
    monkeypatch.setattr(Interrupt, "at_trial", 2)
    with pytest.raises(KeyboardInterrupt):
        run_study(model, args, study, **callbacks)
    best_dir = tmp_path / "out" / "best_trial"
    with RunLock(best_dir):  # somebody is at it
        run_study(model, args, study, **callbacks)
    for _ in range(2):
        result = run_study(model, args, study, **callbacks)
    assert [path.name for path in result.output_dir.glob("best_*")] == ["best_trial"]
    record = json.loads((best_dir / "run.json").read_text())
    assert [each["state"] for each in record["sessions"]] == ["interrupted", "finished"]
    assert record["best_validation_loss"] == result.best_loss


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
