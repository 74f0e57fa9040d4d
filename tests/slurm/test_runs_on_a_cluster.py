"""Runs on a real SLURM cluster, stopped in every way there is."""

from __future__ import annotations

import json

import pytest
import yaml

import setups
from crashing import difference
from finetune_lm.cli import main
from slurm_cluster import wait_until


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A directory with a config file, and the run of it that nobody disturbs."""
    directory = tmp_path_factory.mktemp("begun")
    model, data = setups.setup("lm", epochs=2, max_test_samples=4)
    model["model_pre_train_step_callbacks"] += ["waiting.WaitForSignal"]
    (directory / "mine.yaml").write_text(yaml.safe_dump({**model, **data}))
    config, whole = (str(directory / name) for name in ("mine.yaml", "whole"))
    assert main(["--config", config, "--output_dir", whole]) == 0
    return directory


@pytest.fixture
def submit(begun, cluster, programs, tmp_path, monkeypatch, capsys):
    """Submits the run, with ``out`` or that of its task as its directory. Returns the job.

    It waits at some steps, for which there are files in ``waits`` or its task's directory in it.
    """
    monkeypatch.chdir(tmp_path)

    def get(*options, output_dir="out", steps="0.1"):
        place = f"{tmp_path}/waits" + ("/$SLURM_ARRAY_TASK_ID" if "task" in output_dir else "")
        cluster.environment["WAIT_AT"] = f"{place}:{steps}"
        words = ["--config", str(begun / "mine.yaml"), "--output_dir", output_dir]
        capsys.readouterr()
        assert main(["sbatch", *options, "--", *words]) == 0
        script = programs.in_script(capsys.readouterr().out)
        return cluster.submit(script, "--output=log-%a", cwd=tmp_path)

    return get


def states(directory):
    """How each session of a run has ended."""
    sessions = json.loads((directory / "run.json").read_text())["sessions"]
    return [session["state"] for session in sessions]


def test_a_run_whose_time_is_up_twice(begun, cluster, submit, tmp_path):
    (tmp_path / "waits").mkdir()
    job = submit("--time", "1:00:00", steps="0.1,1.2")
    for step in ("0.1", "1.2"):
        wait_until((tmp_path / "waits" / step).exists)
        cluster.run("scancel", "--signal=USR1", job)  # as --signal does it
        cluster.start_again(job)
    cluster.wait(job)
    assert difference(begun / "whole", tmp_path / "out") == []
    assert states(tmp_path / "out") == ["interrupted", "interrupted", "finished"]


def test_an_array_of_three_of_which_one_is_cancelled_and_one_killed(
    begun, cluster, programs, submit, tmp_path
):
    """Neither is started again by itself, and each goes on when it is."""
    for task in (2, 3):
        (tmp_path / "waits" / str(task)).mkdir(parents=True)
    job = submit("--array=1-3", output_dir="out{task}")
    for task in (2, 3):
        wait_until((tmp_path / "waits" / str(task) / "0.1").exists)
    cluster.run("scancel", f"{job}_2")
    programs.of_task(3).kill()
    cluster.wait(job)
    assert states(tmp_path / "out1") == ["finished"]
    assert states(tmp_path / "out2") == ["interrupted"]  # it had the time to save its state
    assert states(tmp_path / "out3") == ["running"]
    cluster.wait(submit("--array=2-3", output_dir="out{task}"))
    assert states(tmp_path / "out2") == ["interrupted", "finished"]
    assert states(tmp_path / "out3") == ["killed", "finished"]
    for task in (1, 2, 3):
        assert difference(begun / "whole", tmp_path / f"out{task}") == []


def test_a_run_whose_place_another_job_takes(begun, cluster, submit, tmp_path):
    """It has a time to end by itself in, and is put back into the queue."""
    (tmp_path / "waits").mkdir()
    job = submit()
    wait_until((tmp_path / "waits" / "0.1").exists)
    urgent = cluster.submit(
        "#!/bin/sh\nexit 0\n", "--partition=urgent", "--exclusive", "--output=urgent", cwd=tmp_path
    )
    cluster.wait(urgent)
    cluster.start_again(job)
    cluster.wait(job)
    assert "SIGTERM: stopping" in (tmp_path / "log-4294967294").read_text()
    assert states(tmp_path / "out") == ["interrupted", "finished"]
    assert difference(begun / "whole", tmp_path / "out") == []


def test_the_script_as_it_is_printed(cluster, tmp_path, monkeypatch, capsys):
    """With a new Python, as users start it."""
    monkeypatch.chdir(tmp_path)
    test_file = str(setups.DATA / "flomped_test.txt.gz")
    words = ["--model_name_or_path", "tiny-lm", "--test_file", test_file, "--max_test_samples", "2"]
    assert main(["sbatch", "--time=5", "-c2", "--", *words, "--output_dir", "it's mine"]) == 0
    cluster.wait(cluster.submit(capsys.readouterr().out, "--output=log", cwd=tmp_path))
    assert states(tmp_path / "it's mine") == ["finished"], (tmp_path / "log").read_text()
