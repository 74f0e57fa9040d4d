"""Jobs of SLURM whose time is up: by its exit status one is queued again, or not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

import studies
from finetune_lm.cli import main
from finetune_lm.grids.run_states import State
from finetune_lm.models import loading
from finetune_lm.runs.requeueing import IN_VAIN
from finetune_lm.scoring.forward import Forward
from grid_files import BASE, record, states, write_grid

QUEUED_AGAIN, NOT = 128 + signal.SIGUSR1, 1
LOADING = -1


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """A job that was queued again some times, whose time is up at a forward pass or in loading."""
    monkeypatch.chdir(tmp_path)
    score, load = Forward.__call__, loading.identify
    left: list[int | None] = [None]

    def scores(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            signal.raise_signal(signal.SIGUSR1)
        left[0] = None if left[0] is None else left[0] - 1
        return score(*args, **kwargs)

    def loads(*args: Any, **kwargs: Any) -> Any:
        if left[0] == LOADING:
            signal.raise_signal(signal.SIGUSR1)
        return load(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", scores)
    monkeypatch.setattr("finetune_lm.models.loading.identify", loads)
    monkeypatch.setattr("finetune_lm.models.kept_models.identify", loads)

    def do(*words: str, up_at: int | None, restarts: int = 1) -> int:
        left[0] = up_at
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        status = main(list(words))
        assert (f"error: {IN_VAIN}" in capsys.readouterr().err) is (status == NOT)
        return status

    return do


def words(**changed: Any) -> list[str]:
    return [f"--{name}={value}" for name, value in (BASE | changed).items()]


def test_a_run(job):
    begins = words(output_dir="out")
    # What was done in loading, such as a download, may serve the next time, but not for ever.
    assert job(*begins, up_at=LOADING, restarts=0) == QUEUED_AGAIN
    assert job(*begins, up_at=LOADING) == NOT
    assert job(*begins, up_at=0) == QUEUED_AGAIN  # after that step
    goes_on = ["--resume", "out"]
    assert job(*goes_on, up_at=LOADING) == NOT
    assert job(*goes_on, up_at=2) == QUEUED_AGAIN
    assert job(*goes_on, up_at=None) == 0


def test_a_test_that_keeps_nothing_aside_must_come_to_its_end(job):
    about = ("model_name_or_path", "test_file", "max_test_samples")
    tests = [f"--{name}={BASE[name]}" for name in about]
    tests += ["--per_device_test_batch_size=2", "--output_dir=out"]
    assert job(*tests, up_at=1, restarts=0) == QUEUED_AGAIN
    assert job(*tests, up_at=1) == NOT
    assert job(*tests, "--save_tmp_test_files", up_at=1) == QUEUED_AGAIN
    assert job(*tests, "--save_tmp_test_files", up_at=LOADING) == NOT
    assert job(*tests, "--save_tmp_test_files", up_at=None) == 0


def test_a_study(job, tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_lm.study.search.save_plots", lambda *_: None)
    files = studies.files(tmp_path)
    study = [f"--{name}={value}" for name, value in files.items()]
    study += ["--model_name_or_path=tiny-lm", "--do_optimize", "--epochs=1", "--max_trials=2"]
    study += ["--output_dir=out", "--optimize_kwargs.n_trials=None", "--seed=5"]
    study += ["--study_kwargs.load_if_exists=True"]
    assert job(*study, up_at=1, restarts=0) == QUEUED_AGAIN
    assert job(*study, up_at=1) == NOT
    assert job(*study, up_at=3) == QUEUED_AGAIN  # in the second trial


def test_a_run_of_a_grid_is_left_and_the_task_does_others(job):
    write_grid({"seed": "1..2"})
    do = ["grid", "grid.yaml", "run", "--unchecked"]  # as in a task
    assert job(*do, up_at=LOADING, restarts=0) == QUEUED_AGAIN
    assert set(states().values()) == {State.WAITING}
    assert job(*do, up_at=LOADING) == QUEUED_AGAIN
    assert list(states().values()) == [State.FAILED, State.WAITING]
    assert record(Path("out/seed=1"))["failed"] == IN_VAIN
    assert job(*do, up_at=0) == QUEUED_AGAIN
    assert list(states().values()) == [State.FAILED, State.STOPPED]
