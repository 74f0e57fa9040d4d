"""The grid of examples/ does what it says, from its file to its means."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from finetune_lm.cli import main

ROOT = Path(__file__).parent.parent.parent


def test_the_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(ROOT / "data")
    text = (ROOT / "examples" / "grid.yaml").read_text("utf-8")
    assert "epochs: 5" in text
    Path("grid.yaml").write_text(text.replace("epochs: 5", "epochs: 2"), "utf-8")
    assert main(["grid", "grid.yaml", "run"]) == 0
    assert main(["grid", "grid.yaml", "collect", "grid.parquet"]) == 0
    spec = importlib.util.spec_from_file_location("grid_means", ROOT / "examples/grid_means.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table = module.means("grid.parquet")
    assert set(table["size"]) == {2}
    means = table["mean"]
    assert len(means) == 2 * 2 * 4 * 2
    for loss in ("plain", "kl"):
        # A construction costs less where it was taught.
        active, passive = (
            means[training, loss, "active SVO", "expected"] for training in ("active", "passive")
        )
        assert active < passive
