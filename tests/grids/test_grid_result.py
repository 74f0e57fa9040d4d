"""A grid from Python."""

from __future__ import annotations

import pytest

import finetune_lm
from finetune_lm import UserError
from finetune_lm.cli import main
from finetune_lm.grids import local_workers
from grid_files import write_grid


def test_runs_are_done_and_come_back_as_data_frames(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kinds = {"good": {"epochs": 1}, "bad": {"train_optimizer_kwargs.lr": 1e30}}
    write_grid({"state": kinds, "seed": "3..4"}, exclude=[{"state": "bad", "seed": 4}])
    result = finetune_lm.grid("grid.yaml")
    assert "3 runs: 2 finished, 1 failed" in capsys.readouterr().err
    table = result.runs
    expected = ["run", "grid_state", "seed", "state", "reason", "seconds", "output_dir"]
    assert list(table.columns) == expected
    assert list(table["grid_state"]) == ["good", "good", "bad"]
    assert list(table["seed"]) == [3, 4, 3]
    assert list(table["state"]) == ["finished", "finished", "failed"]
    assert list(table["reason"].isna()) == [True, True, False]
    assert (table["seconds"] > 0).all()
    assert list(table["output_dir"])[1] == "out/state=good_seed=4"
    assert list(result.failed["run"]) == ["state=bad_seed=3"]
    assert "nan" in result.failed["reason"].iloc[0] or "finite" in result.failed["reason"].iloc[0]

    tests = result.load()
    assert main(["grid", "grid.yaml", "collect", "tests.parquet"]) == 0
    assert tests.equals(finetune_lm.load_grid("tests.parquet"))
    assert len(result.load("metrics")) > len(tests)

    # Nothing is left to do; several processes are told so, too.
    started = []
    monkeypatch.setattr(local_workers.LocalWorkers, "run", lambda self: started.append(self._n))
    again = finetune_lm.grid(tmp_path / "grid.yaml", jobs=2)
    assert again.runs.equals(table)
    assert started == [2]


@pytest.mark.parametrize("jobs", [0, True, "2"])
def test_jobs_are_a_number(jobs):
    with pytest.raises(UserError, match="jobs must be an integer of at least 1"):
        finetune_lm.grid("grid.yaml", jobs=jobs)
