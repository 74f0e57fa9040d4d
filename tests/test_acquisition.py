"""The example that draws a series: its sigmoids are those that made the points."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

PATH = Path(__file__).parent.parent / "examples" / "acquisition.py"


@pytest.fixture(scope="module")
def acquisition():
    spec = importlib.util.spec_from_file_location("acquisition", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["acquisition"] = module
    spec.loader.exec_module(module)
    return module


STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 4000, 16000, 64000, 143000])


@pytest.mark.parametrize("turn", [1.2, 2.5, 4.0])
@pytest.mark.parametrize("slope", [0.1, 0.4])
@pytest.mark.parametrize(("begin", "end"), [(15.6, 3.2), (4.0, 9.0)])
def test_a_sigmoid_is_found_again(acquisition, turn, slope, begin, end):
    x = np.log10(STEPS + 1)
    y = end + (begin - end) / (1 + np.exp((x - turn) / slope))
    found = acquisition.fit(x, y)
    assert (found.begin, found.end) == pytest.approx((begin, end), abs=0.02)
    assert found.turn == pytest.approx(turn, abs=0.01)
    assert found.slope == pytest.approx(slope, abs=0.01)
    assert found.r_squared == pytest.approx(1, abs=1e-5)
    # Halfway, by definition.
    assert found(np.array([found.turn]))[0] == pytest.approx((begin + end) / 2, abs=0.02)


def test_noise_and_curves_that_are_flat(acquisition):
    x = np.log10(STEPS + 1)
    noise = np.random.default_rng(1).normal(0, 0.1, len(x))
    found = acquisition.fit(x, 4 + 8 / (1 + np.exp((x - 3) / 0.3)) + noise)
    assert found.turn == pytest.approx(3, abs=0.1)
    assert 0.99 < found.r_squared < 1
    assert acquisition.fit(x, np.full(len(x), 5.0)).r_squared == 1.0
    with pytest.raises(ValueError, match="needs 5 checkpoints at least but got 4"):
        acquisition.fit(x[:4], x[:4])


def test_a_word_costs_what_its_tokens_cost_together(acquisition, tmp_path, capsys):
    rows = []
    for step in STEPS:
        mean = 3 + 10 / (1 + np.exp((np.log10(step + 1) - 2) / 0.2))
        for example in range(2):
            for word_num, (word, tokens) in enumerate({"flomped": 2, "water": 1}.items()):
                cost = (mean + (example - 0.5)) * (1 if word == "flomped" else 0.5)
                rows += [
                    (f"step{step}", step, np.nan, "a", example, word_num, word, cost / tokens)
                ] * tokens
    names = ["revision", "step", "tokens_seen", "dataset_name", "example_num", "word_num"]
    table = pd.DataFrame(rows, columns=[*names, "word", "surprisal"])
    means = acquisition.curves(table, "step", "word", None)
    assert means["flomped"].tolist() == pytest.approx(
        [3 + 10 / (1 + np.exp((np.log10(step + 1) - 2) / 0.2)) for step in STEPS]
    )
    assert means["water"].tolist() == pytest.approx((means["flomped"] / 2).tolist())
    assert acquisition.curves(table, "step", "word", ["water"]).columns.tolist() == ["water"]
    path = tmp_path / "series.csv.gz"
    table.to_csv(path, index=False, na_rep="NA")
    acquisition.main([str(path), str(tmp_path / "x.png"), "--by", "word"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["word", "begin", "end", "step", "r_squared"]
    for line, levels in zip(lines[1:], [("flomped", 13, 3), ("water", 6.5, 1.5)], strict=True):
        name, begin, end, turn, r_squared = line.split("\t")
        assert (name, float(begin), float(end)) == (levels[0], *map(pytest.approx, levels[1:]))
        assert float(turn) == pytest.approx(99, abs=2)
        assert float(r_squared) == 1
    assert (tmp_path / "x.png").stat().st_size > 10_000
