from __future__ import annotations

import shlex

import pytest

from finetune_lm.cli import main
from finetune_lm.grids.run_states import GridRunRecord
from finetune_lm.runs.lock import RunLock
from finetune_lm.slurm.batch_script import PROGRAM
from finetune_lm.whole_files import sealed
from grid_files import record, runs, write_grid

GRID = ["grid", "grid.yaml"]
SUBMIT = [*GRID, "submit", "--tasks", "4"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_grid({"seed": "1..3"})


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A cluster that takes every script into a file, unless there is a file ``full``."""
    directory = tmp_path / "commands"
    directory.mkdir()
    (directory / "sbatch").write_text(
        "#!/bin/sh\nif [ -e full ]; then echo 'sbatch: error: too many' >&2; exit 1; fi\n"
        'cat >submitted; echo "$@" >options; echo "55;big"\n'
    )
    (directory / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return tmp_path / "submitted"


def state(number, *, finished=False, failed=None, digest=None):
    """Leave a run as if something had become of it."""
    run = runs()[number]
    run.directory.mkdir(parents=True, exist_ok=True)
    digest = digest or run.digest()
    GridRunRecord(run.values, digest, failed=failed, finished=finished).write(run.directory)
    if finished:
        (run.directory / "run.json").write_text(sealed({"state": "finished"}), encoding="utf-8")
    return run


def test_the_script_is_shown_and_nothing_done(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without any sbatch
    words = ["--time", "4:00:00", "--dry-run", "--threads", "2", "--", "--gres=gpu:1", "-pgpu"]
    assert main([*SUBMIT, *words]) == 0
    shown = capsys.readouterr().out
    for line in (
        "#SBATCH --job-name=out",
        "#SBATCH --array=1-3",  # no more than there are runs
        "#SBATCH --time=4:00:00",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=USR1@120",
        f"srun {shlex.join([*PROGRAM, *GRID])} run --unchecked --threads 2",
        'if [ "$state" = RUNNING ]; then scontrol requeue "$job"; fi',
    ):
        assert line in [each.strip() for each in shown.splitlines()], line
    assert main([*SUBMIT, "--nproc-per-node", "4", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "-m torch.distributed.run --nproc-per-node 4 " in shown
    assert f" -m finetune_lm {shlex.join(GRID)} run --unchecked\n" in shown
    assert "#SBATCH --nproc" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["grid.yaml"]


def test_what_is_submitted_and_said(sbatch, capsys):
    assert main([*SUBMIT, "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert main(SUBMIT) == 0
    captured = capsys.readouterr()
    assert captured.out == "55\n"
    assert captured.err == "3 runs are left to the tasks of job 55.\n"
    assert sbatch.read_text() == script
    assert sbatch.with_name("options").read_text() == "--parsable\n"


def test_runs_that_are_finished_or_failed_need_no_task(sbatch, capsys):
    state(0, finished=True)
    failed = state(1, failed="of something")
    assert main([*SUBMIT, "--dry-run"]) == 0
    assert "#SBATCH --array=1-1\n" in capsys.readouterr().out
    assert main([*SUBMIT, "--retry", "--dry-run"]) == 0
    assert "#SBATCH --array=1-2\n" in capsys.readouterr().out
    assert record(failed.directory)["failed"] == "of something"
    # It is put back once, for whichever task comes first.
    (failed.directory / "checkpoints").mkdir()
    assert main([*SUBMIT, "--retry"]) == 0
    assert "--retry" not in sbatch.read_text()
    assert record(failed.directory)["failed"] is None
    assert (failed.directory / "checkpoints").exists()
    # What it has left is of no use for other arguments.
    state(1, failed="of something", digest="other")
    assert main([*SUBMIT, "--retry"]) == 0
    assert not (failed.directory / "checkpoints").exists()
    # One that somebody does is left to them.
    state(1, failed="of something")
    with RunLock(failed.directory):
        assert main([*SUBMIT, "--retry"]) == 0
    assert record(failed.directory)["failed"] == "of something"


def test_nothing_left(sbatch, capsys):
    for number in range(3):
        state(number, finished=True)
    for more in ([], ["--dry-run"]):
        assert main([*SUBMIT, *more]) == 0
        assert capsys.readouterr() == ("", "nothing is left to do.\n")
    assert not sbatch.exists()


def test_mistakes(sbatch, capsys, monkeypatch, tmp_path):
    for words, told in {
        (*GRID, "submit"): "submit needs --tasks, in how many tasks to do the runs.",
        (*SUBMIT[:3], "--tasks", "0"): "--tasks must be at least 1 but got 0.",
        (*GRID, "run", "--tasks", "2", "--time", "1"): "--tasks, --time can only be given to subm",
        (*GRID, "list", "--", "--gres=gpu:1"): "-- can only be given to submit.",
        (*SUBMIT, "--", "--array=1-3"): "--array cannot be given for a grid: --tasks says how many",
        (*SUBMIT, "--", "-n", "3"): "--ntasks cannot be given for a grid: each task has one worker",
        (*SUBMIT, "--nproc-per-node", "2", "--jobs", "2"): "--jobs cannot be given with --nproc",
        (*SUBMIT, "--", "4:00:00"): "'4:00:00' must be an option of sbatch",
    }.items():
        assert main(list(words)) == 2
        assert told in capsys.readouterr().err
    (tmp_path / "full").touch()
    assert main(SUBMIT) == 2
    assert "sbatch does not take the job: sbatch: error: too many." in capsys.readouterr().err
    write_grid({"seed": "1..3"}, {"train_file": "nowhere.txt"})
    assert main(SUBMIT) == 2
    assert "nowhere.txt" in capsys.readouterr().err
    assert not sbatch.exists()
    write_grid({"seed": "1..3"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(SUBMIT) == 2
    assert "there is no sbatch here" in capsys.readouterr().err
