"""The notebook among the examples, cell after cell."""

from __future__ import annotations

import json
from pathlib import Path

PATH = Path(__file__).parent.parent / "examples" / "from_run_to_figure.ipynb"


def test_the_notebook_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads(PATH.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            # Outputs would be other ones with each version.
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    means = names["means"]["mean"]
    assert list(means.index) == list(range(-1, len(means) - 1))
    # The object that was taught gets cheaper, and more so than the other.
    first, last = means.iloc[0], means.iloc[-1]
    assert last["expected"] < first["expected"] - 1
    assert last["reversed"] - last["expected"] > first["reversed"] - first["expected"] + 1
    assert (names["result"].output_dir / "objects.pdf").stat().st_size > 1000
