"""Small grids for tests: of a few sentences, with a built-in model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from finetune_lm.grids.grid_file import read_grid
from finetune_lm.grids.grid_runs import GridRun, runs_of
from finetune_lm.grids.run_states import State, state_of

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
BASE: dict[str, Any] = {
    "model_name_or_path": "tiny-lm",
    "train_file": str(DATA / "flomped_active.txt.gz"),
    "validation_file": str(DATA / "flomped_passive.txt.gz"),
    "test_file": str(DATA / "flomped_test.txt.gz"),
    "max_train_samples": 4,
    "max_validation_samples": 3,
    "max_test_samples": 5,
    "per_device_train_batch_size": 2,
    "train_optimizer_kwargs.lr": 1e-3,
    "epochs": 2,
    "checkpoint_every": 1,
    "save_best_model_state_to_disk": False,
}


def write_grid(vary: dict[str, Any], base: dict[str, Any] | None = None, **parts: Any) -> None:
    """Write ``grid.yaml`` into the current directory; ``base`` is put over `BASE`."""
    grid = {"output_dir": "out", "base": {**BASE, **(base or {})}, "vary": vary, **parts}
    Path("grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False), encoding="utf-8")


def runs() -> list[GridRun]:
    """The runs of ``grid.yaml``."""
    return runs_of(read_grid("grid.yaml"))


def states() -> dict[str, State]:
    """How far each run is."""
    return {run.name: state_of(run.directory).state for run in runs()}


def tables(directory: Path) -> dict[str, bytes]:
    """The tables of a run."""
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.csv*"))}


def record(directory: Path) -> dict[str, Any]:
    """What workers have put down about a run."""
    return json.loads((directory / "grid_run.json").read_text(encoding="utf-8"))
