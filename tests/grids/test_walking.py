from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import finetune_lm
from commands import Command, run_command
from finetune_lm.cli import main
from finetune_lm.grids import local_workers, walking
from finetune_lm.grids.run_states import GridRunRecord, State
from finetune_lm.runs.lock import RunLock
from finetune_lm.scoring.forward import Forward
from finetune_lm.whole_files import sealed
from grid_files import BASE, record, runs, states, tables, write_grid
from studies import wait_for

HERE = str(Path(__file__).parent.parent)
SEEDS = {"seed": "1..3"}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The tables of each seed's run, made without a grid."""
    place = tmp_path_factory.mktemp("unbroken")
    found = {}
    for seed in (1, 2, 3):
        given = {k: v for k, v in BASE.items() if not k.startswith(("model", "train_opt"))}
        args = finetune_lm.DataTrainingArguments(
            **given,
            train_optimizer_kwargs={"lr": 1e-3},
            seed=seed,
            output_dir=str(place / str(seed)),
        )
        result = finetune_lm.run(finetune_lm.ModelArguments("tiny-lm"), args)
        found[f"seed={seed}"] = tables(result.output_dir)
    return found


def made() -> dict[str, dict[str, bytes]]:
    return {run.name: tables(run.directory) for run in runs()}


def worker(*more: str, **environment: str) -> Command:
    """A worker in a process of its own."""
    argv = ["grid", "grid.yaml", "run", *more]
    return Command(
        *argv, cwd=Path.cwd(), merged=True, environment={"PYTHONPATH": HERE} | environment
    )


def test_all_runs_are_done_and_only_once(unbroken, capsys):
    write_grid(SEEDS)
    assert set(states().values()) == {State.WAITING}
    assert main(["grid", "run", "grid.yaml"]) == 0
    assert "3 runs: 3 finished" in capsys.readouterr().err
    assert made() == unbroken
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    assert main(["grid", "grid.yaml", "run", "--retry"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before
    assert main(["grid", "grid.yaml", "status"]) == 0
    assert capsys.readouterr().out == "3 runs: 3 finished\n"
    said = Path("out/seed=1/log.txt").read_text()
    assert "epoch 1 (2/2)" in said
    assert record(Path("out/seed=1"))["values"] == {"seed": "1"}
    # A directory is an ordinary one of a run.
    assert len(finetune_lm.load_metrics("out/seed=1")) > 0
    assert main(["--resume", "out/seed=1"]) == 0


def test_list_prints_where_the_runs_are_and_writes_nothing(capsys):
    write_grid(SEEDS)
    assert main(["grid", "grid.yaml", "list"]) == 0
    assert capsys.readouterr().out == "out/seed=1\nout/seed=2\nout/seed=3\n"
    assert list(Path().iterdir()) == [Path("grid.yaml")]


def test_a_run_that_fails_is_left_and_the_others_go_on(unbroken, capsys):
    write_grid({"kind": {"good": None, "bad": {"train_optimizer_kwargs.lr": 1e30}}, **SEEDS})
    assert main(["grid", "grid.yaml", "run"]) == 1
    told = capsys.readouterr().err
    assert "3 of 6 runs failed" in told
    assert "6 runs: 3 finished, 3 failed" in told
    assert {run.name[-6:]: tables(run.directory) for run in runs()[:3]} == unbroken
    reason = record(Path("out/kind=bad_seed=2"))["failed"]
    assert "not a number" in reason or "nan" in reason
    assert main(["grid", "grid.yaml", "status"]) == 1
    shown = capsys.readouterr()
    assert f"failed: {reason}" in shown.out
    assert "  kind=bad_seed=3\n" in shown.out
    log = Path("out/kind=bad_seed=1/log.txt")
    n_tries = log.read_text().count("error: ")
    assert n_tries == 1
    assert main(["grid", "grid.yaml", "run"]) == 1
    assert log.read_text().count("error: ") == 1
    assert main(["grid", "grid.yaml", "run", "--retry"]) == 1
    assert log.read_text().count("error: ") == 2
    # What was wrong is put right, and only what failed is done.
    write_grid({"kind": {"good": None, "bad": {"train_optimizer_kwargs.lr": 1e-4}}, **SEEDS})
    capsys.readouterr()
    assert main(["grid", "grid.yaml", "run", "--retry"]) == 0
    assert capsys.readouterr().err.count("begun.") == 3


def test_a_signal_stops_at_a_step_and_the_run_goes_on_later(unbroken, monkeypatch, capsys):
    """At a step of the second run, between two runs, and once nothing is left to stop."""
    write_grid(SEEDS)
    calls: list[int] = []
    original = Forward.__call__

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", counted)
    stops = {11, 16}
    assert main(["grid", "grid.yaml", "run"]) == 143
    assert "--resume" not in capsys.readouterr().err
    assert states() == {
        "seed=1": State.FINISHED,
        "seed=2": State.STOPPED,
        "seed=3": State.WAITING,
    }
    assert record(Path("out/seed=2"))["n_unended"] == 0
    assert main(["grid", "grid.yaml", "run"]) == 143
    assert main(["grid", "grid.yaml", "run"]) == 0
    assert made() == unbroken


def test_a_signal_that_comes_when_a_run_is_over_begins_no_other(monkeypatch):
    write_grid(SEEDS)
    from finetune_lm.training.checkpoints import Checkpoints

    def remove(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "remove", remove)
    assert main(["grid", "grid.yaml", "run"]) == 143
    assert list(states().values()) == [State.STOPPED, State.WAITING, State.WAITING]


def test_workers_are_killed_and_others_added(unbroken, capsys):
    """One that hangs in a run is passed over, and taken up when it is gone."""
    callback = {"model_pre_train_step_callbacks": ["studies.HangHere"]}
    write_grid(SEEDS, callback)
    first = worker(HANG=str(Path("hangs").absolute()))
    wait_for(Path("hangs"), first)
    assert states()["seed=1"] is State.RUNNING
    assert (
        run_command(
            "grid", "grid.yaml", "run", cwd=Path.cwd(), environment={"PYTHONPATH": HERE}
        ).returncode
        == 0
    )
    assert list(states().values()) == [State.RUNNING, State.FINISHED, State.FINISHED]
    assert main(["grid", "grid.yaml", "status"]) == 0
    shown = capsys.readouterr().out
    assert "3 runs: 1 under way, 2 finished" in shown
    first.kill()
    first.wait()
    assert states()["seed=1"] is State.STOPPED
    assert record(Path("out/seed=1"))["n_unended"] == 1
    # Two at the same time: each run is done by one of them.
    both = [worker(), worker()]
    said = "".join(each.communicate()[0] for each in both)
    assert said.count("seed=1: begun.") == 1
    assert "begun" not in said.replace("seed=1: begun.", "")
    assert made() == unbroken
    # And what is collected is what is collected of runs that nothing happened to.
    assert main(["grid", "grid.yaml", "collect", "all.parquet"]) == 0
    shutil.rmtree("out")
    for name, of_run in unbroken.items():
        directory = Path("out", name)
        directory.mkdir(parents=True)
        (directory / "run.json").write_text(sealed({"state": "finished"}))
        for table, content in of_run.items():
            (directory / table).write_bytes(content)
    assert main(["grid", "grid.yaml", "collect", "unbroken.parquet"]) == 0
    assert Path("all.parquet").read_bytes() == Path("unbroken.parquet").read_bytes()


def test_a_run_whose_process_died_three_times_is_left(capsys):
    write_grid(SEEDS, {"model_pre_train_step_callbacks": ["studies.HangHere"]})
    for n in range(3):
        marker = Path(f"hangs{n}")
        process = worker(HANG=str(marker.absolute()))
        wait_for(marker, process)
        process.kill()
        process.wait()
    assert states()["seed=1"] is State.FAILED
    assert (
        run_command(
            "grid", "grid.yaml", "run", cwd=Path.cwd(), environment={"PYTHONPATH": HERE}
        ).returncode
        == 1
    )
    assert list(states().values()) == [State.FAILED, State.FINISHED, State.FINISHED]
    assert main(["grid", "grid.yaml", "status"]) == 1
    assert "failed: its process died 3 times.\n  seed=1\n" in capsys.readouterr().out
    assert (
        run_command(
            "grid", "grid.yaml", "run", "--retry", cwd=Path.cwd(), environment={"PYTHONPATH": HERE}
        ).returncode
        == 0
    )
    assert set(states().values()) == {State.FINISHED}


def test_a_run_without_a_checkpoint_is_done_again(unbroken):
    write_grid(SEEDS, {"checkpoint_every": 0})
    directory = Path("out/seed=1")
    assert main(["grid", "grid.yaml", "run"]) == 0
    expected = made()
    # As a process leaves it that was killed in the middle.
    said = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**said, "state": "running"}))
    (directory / "tiny-lm-test_results.csv.gz").unlink()
    GridRunRecord({"seed": "1"}, n_unended=1).write(directory)
    assert states()["seed=1"] is State.WAITING
    assert main(["grid", "grid.yaml", "run"]) == 0
    assert made() == expected


def test_the_seed_of_a_run_that_was_given_none_is_kept(monkeypatch):
    write_grid({"epochs": [2]})
    original, calls = Forward.__call__, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", counted)
    assert main(["grid", "grid.yaml", "run"]) == 143
    seed = json.loads(Path("out/epochs=2/run.json").read_text())["identity"]["seed"]
    assert main(["grid", "grid.yaml", "run"]) == 0
    assert set(finetune_lm.load_metrics("out/epochs=2")["seed"]) == {seed}
    # And nothing is found to have changed.
    assert main(["grid", "grid.yaml", "list"]) == 0


def test_a_directory_that_is_not_of_the_grid_is_left_alone(capsys):
    write_grid(SEEDS)
    directory = Path("out/seed=1")
    directory.mkdir(parents=True)
    (directory / "metrics.csv.gz").write_bytes(b"mine")
    assert main(["grid", "grid.yaml", "run"]) == 1
    assert "output_dir must not have results of another run" in record(directory)["failed"]
    assert (directory / "metrics.csv.gz").read_bytes() == b"mine"
    assert list(states().values()) == [State.FAILED, State.FINISHED, State.FINISHED]


def test_two_processes_on_this_machine(unbroken, capfd):
    write_grid(SEEDS)
    assert main(["grid", "grid.yaml", "run", "--jobs", "2"]) == 0
    said = capfd.readouterr().err
    assert said.count("begun.") == 3
    assert "3 runs: 3 finished" in said
    assert made() == unbroken


@pytest.fixture
def forked(monkeypatch):
    """Workers of this machine that need not import anything. Returns those that were started.

    Where the grid has `studies.HangHere` the first hangs, and others begin when it does.
    """
    started: list[Command] = []

    def start(self: Any, n: int, *more: str) -> Command:
        is_to_hang = not started and "HangHere" in Path("grid.yaml").read_text()
        hang = {"HANG": str(Path("hangs").absolute())} if is_to_hang else {}
        started.append(worker("--unchecked", *more, **hang))
        if is_to_hang:
            wait_for(Path("hangs"), started[-1])
        return started[-1]

    monkeypatch.setattr(local_workers.LocalWorkers, "_start", start)
    return started


def test_a_worker_that_is_killed_is_replaced(unbroken, forked, monkeypatch, capsys):
    write_grid(SEEDS, {"model_pre_train_step_callbacks": ["studies.HangHere"]})
    original = local_workers.time.sleep

    def sleep(seconds: float) -> None:
        if len(forked) == 2:
            forked[0].kill()
        original(seconds)

    monkeypatch.setattr(local_workers.time, "sleep", sleep)
    assert main(["grid", "grid.yaml", "run", "--jobs", "2"]) == 0
    assert "a worker was killed by SIGKILL; another takes its place." in capsys.readouterr().err
    assert len(forked) == 3
    assert made() == unbroken


def test_a_signal_reaches_the_workers(unbroken, forked, monkeypatch):
    write_grid(SEEDS, {"epochs": 2000})
    original = local_workers.time.sleep

    def sleep(seconds: float) -> None:
        if len(list(Path("out").glob("*/metrics.csv.gz"))) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(seconds)

    monkeypatch.setattr(local_workers.time, "sleep", sleep)
    assert main(["grid", "grid.yaml", "run", "--jobs", "2"]) == 143
    assert [each.returncode for each in forked] == [143, 143]
    assert sorted(states().values(), key=str) == [State.STOPPED, State.STOPPED, State.WAITING]


def test_a_lock_is_no_other_workers_business(unbroken):
    write_grid(SEEDS)
    Path("out/seed=2").mkdir(parents=True)
    with RunLock(Path("out/seed=2")):
        done = run_command("grid", "grid.yaml", "run", cwd=Path.cwd())
    assert done.returncode == 0
    assert list(states().values()) == [State.FINISHED, State.WAITING, State.FINISHED]


def test_a_process_that_has_lost_its_gpu_begins_anew(monkeypatch):
    """The run that did it has failed, and those after it are for a new process."""
    write_grid({"kind": {"bad": {"train_optimizer_kwargs.lr": 1e30}, "good": {}}})
    begun = []
    monkeypatch.setattr(walking, "gpu_is_lost", lambda: True)
    monkeypatch.setattr(os, "execv", lambda program, words: begun.append((program, words)))
    main(["grid", "grid.yaml", "run", "--retry"])
    assert states() == {"kind=bad": State.FAILED, "kind=good": State.WAITING}
    again = ["-m", "finetune_lm", "grid", "grid.yaml", "run"]
    assert begun == [(sys.executable, [sys.executable, *again])]
