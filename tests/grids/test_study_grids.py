"""Grids of studies, and grids that take the best values of studies."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import finetune_lm
from finetune_lm.cli import main
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_checks import check_grid
from finetune_lm.grids.grid_file import read_grid
from finetune_lm.grids.grid_runs import runs_of
from finetune_lm.grids.run_states import State
from finetune_lm.models import kept_models
from grid_files import runs, states, write_grid

N_TRIALS = 3
STUDY = {
    "do_optimize": True,
    "epochs": 1,
    "seed": 1,
    "study_kwargs.sampler": "optuna.samplers.RandomSampler",
    "study_kwargs.pruner": "optuna.pruners.NopPruner",
    "params": {
        "lr": {"values": ["1e-5", "1e-2"], "suggest_kwargs": {"log": True}},
        "max_grad_norm": {"values": ["0.5", "2.0"]},
        "per_device_train_batch_size": {"values": [1, 2], "type": "categorical"},
    },
    "optimize_kwargs.n_trials": N_TRIALS,
}
KINDS = {"kind": {"short": {"max_train_samples": 2}, "long": {"max_train_samples": 4}}}


@pytest.fixture(scope="module", autouse=True)
def without_plots():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune_lm.study.search.save_plots", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The directory of a grid of two studies that are over, the second of which was stopped."""
    place = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_grid(KINDS, STUDY)
        patch.setattr("finetune_lm.study.trials.Trials._follow_up", _stopping())
        load, loaded = kept_models.load_untouched, []
        patch.setattr(kept_models, "load_untouched", lambda *a: loaded.append(1) or load(*a))
        assert main(["grid", "grid.yaml", "run"]) == 143
        assert len(loaded) == 1  # for both studies
        assert states() == {"kind=short": State.FINISHED, "kind=long": State.STOPPED}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["grid", "grid.yaml", "run"]) == 0
        assert set(states().values()) == {State.FINISHED}
    return place


def _stopping() -> Any:
    """What is done after a trial, and a signal after the second one of the second study."""
    from finetune_lm.study.trials import Trials

    original = Trials._follow_up

    def follow_up(self: Any, study: Any, trial: Any) -> None:
        original(self, study, trial)
        if Path("out/kind=long/run.json").exists() and trial.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return follow_up


@pytest.fixture(autouse=True)
def in_a_copy(studies, tmp_path, monkeypatch):
    shutil.copytree(studies, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")


def test_each_study_has_its_trials_whatever_stopped_it(capfd):
    trials = finetune_lm.load_grid("grid.yaml")
    complete = trials[trials["state"] == "COMPLETE"]
    assert complete.groupby("kind").size().to_dict() == {"long": N_TRIALS, "short": N_TRIALS}
    assert list(trials.columns[:3]) == ["run", "kind", "study_name"]
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    assert main(["grid", "grid.yaml", "run"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before
    assert capfd.readouterr().err == "2 runs: 2 finished\n"


def second(**base: Any) -> list[Any]:
    """The runs of a grid that takes the best values of the studies."""
    Path("grid.yaml").rename("studies.yaml")
    write_grid(
        {**KINDS, "seed": "1..2"},
        {"epochs": 1, "train_optimizer_kwargs.lr": 5, **base},
        from_study="out/kind={kind}",
        output_dir="runs",
    )
    return runs()


def test_best_values_feed_a_second_grid():
    trials = finetune_lm.load_grid("grid.yaml")
    found = second()
    check_grid(found)
    for run in found:
        mine = trials[(trials["kind"] == run.values["kind"]) & (trials["state"] == "COMPLETE")]
        best = mine.loc[mine["value"].idxmin()]
        _, data, optimization = run.arguments()
        assert data.train_optimizer_kwargs["lr"] == best["lr"] == data.lr
        assert data.max_grad_norm == best["max_grad_norm"]
        assert data.per_device_train_batch_size == best["per_device_train_batch_size"]
        assert data.seed == int(run.values["seed"])
        assert not optimization.do_optimize
    # The values of a set of arguments are under those of the study, which are under the axes.
    write_grid(
        {"kind": {"long": {"max_grad_norm": 9}}, "train_optimizer_kwargs.lr": ["0.5"]},
        from_study="out/kind={kind}",
        output_dir="runs",
    )
    [run] = runs()
    assert run.arguments()[1].max_grad_norm < 3
    assert run.arguments()[1].lr == 0.5


def test_the_best_trial_again_comes_to_the_best_value():
    """So the values are where they belong."""
    trials = finetune_lm.load_grid("grid.yaml")
    run = next(run for run in second() if run.name == "kind=long_seed=1")
    model, data, optimization = run.arguments()
    result = finetune_lm.run(model, data, optimization)
    complete = trials[(trials["kind"] == "long") & (trials["state"] == "COMPLETE")]
    assert result.best_loss == complete["value"].min()
    # One that was done in a process that had done another study before.
    [first] = complete[complete["number"] == 0].to_dict("records")
    tried = {
        "train_optimizer_kwargs": {**data.train_optimizer_kwargs, "lr": first["lr"]},
        "max_grad_norm": first["max_grad_norm"],
        "per_device_train_batch_size": first["per_device_train_batch_size"],
        "output_dir": "first",
    }
    assert finetune_lm.run(model, replace(data, **tried), optimization).best_loss == first["value"]


def test_a_study_that_is_not_over_is_a_mistake():
    second()
    for path in Path("out/kind=long").glob("run*.json"):
        path.write_text(json.dumps({}))
    shutil.rmtree("out/kind=short")
    with pytest.raises(UserError) as caught:
        check_grid(runs_of(read_grid("grid.yaml")))
    assert [problem.split(" (in ")[0] for problem in caught.value.problems] == [
        "from_study must name the output directory of a finished study, but out/kind=short has "
        "none.",
        "from_study must name the output directory of a finished study, but out/kind=long has "
        "none.",
    ]
