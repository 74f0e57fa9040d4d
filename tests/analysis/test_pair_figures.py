"""What a report says of minimal pairs is what the run's summaries say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune_lm.analysis.figure_parts import INTERVALS, LINE
from finetune_lm.analysis.item_values import Conditions
from finetune_lm.analysis.pair_figures import pair_figures, pairs_frame
from finetune_lm.analysis.report_frames import Results
from finetune_lm.analysis.report_tables import pairs_table
from finetune_lm.analysis.run_files import read_runs
from finetune_lm.analysis.run_groups import grouped
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.cli import main
from report_runs import DRINKS, PEOPLE, data, do, write_lines


def pairs(directory: Path, n_phenomena: int) -> str:
    """People who flomp drinks, and drinks that flomp people, of so many phenomena."""
    texts, metadata = [], []
    for number, (who, what) in enumerate((who, what) for who in PEOPLE for what in DRINKS):
        for is_expected, (first, last) in ((True, (who, what)), (False, (what, who))):
            texts.append(f"A {first} will flomp {last}.")
            metadata.append(
                {
                    "item": number,
                    "condition": "expected" if is_expected else "reversed",
                    "expected": is_expected,
                    "phenomenon": f"p{number % n_phenomena}",
                }
            )
    return write_lines(directory / f"pairs{n_phenomena}.txt.gz", texts, metadata)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose probes and tests are pairs of two phenomena, with a contrast."""
    directory = tmp_path_factory.mktemp("pairs")
    files = data(directory)
    given = {"probe_file": pairs(directory, 2), "test_file": pairs(directory, 3)}
    contrasts = {"order": "reversed - expected"}
    return do(directory / "run", **{**files, **given}, contrasts=contrasts)


def results(*runs: Path) -> Results:
    files, conditions = read_runs(runs), Conditions(["condition"])
    return Results(
        [RunTrajectories(each, conditions) for each in files], grouped(files), conditions
    )


def test_accuracies_over_epochs_are_those_of_the_summary(run):
    summary = pd.read_csv(run / "probe_summary.csv")
    figures = {figure.stem: figure for figure in pair_figures(results(run))}
    assert set(figures) == {"accuracy", "difference", "accuracy_tests", "difference_tests"}
    (panel,) = figures["accuracy"].panels
    assert [series.name for series in panel.series] == ["p0", "p1"]
    for series in panel.series:
        rows = summary[(summary["phenomenon"] == series.name) & (summary["comparison"] == "pair")]
        assert series.kind == LINE
        assert series.x.tolist() == [0.0, 1.0, 2.0, 3.0]
        np.testing.assert_allclose(series.y, rows["accuracy"])
        np.testing.assert_allclose(series.low, rows["ci_low"])
        np.testing.assert_allclose(series.high, rows["ci_high"])
    lines = {series.name: series for series in figures["difference"].panels[0].series}
    assert set(lines) == {"p0", "p1", "p0: order", "p1: order"}
    contrast = summary[(summary["comparison"] == "contrast") & (summary["phenomenon"] == "p0")]
    np.testing.assert_allclose(lines["p0: order"].y, contrast["mean_difference"])


def test_tests_stand_by_phenomenon(run):
    (summary_path,) = run.glob("*-test_summary.csv")
    summary = pd.read_csv(summary_path)
    figure = {f.stem: f for f in pair_figures(results(run))}["accuracy_tests"]
    (panel,) = figure.panels
    assert list(panel.categories) == ["p0", "p1", "p2"]
    (series,) = panel.series
    assert series.kind == INTERVALS
    expected = summary[summary["comparison"] == "pair"]
    np.testing.assert_allclose(series.x, expected["accuracy"])
    assert series.y.tolist() == [0.0, 1.0, 2.0]


def test_the_table_has_both_ends(run):
    found = results(run)
    table = pairs_table(found, pairs_frame(found))
    best = found.runs[0].files.best_epoch
    summary = pd.read_csv(run / "probe_summary.csv")
    of_pairs = summary[(summary["comparison"] == "pair") & (summary["phenomenon"] == "p1")]
    row = table[(table["dataset_type"] == "probe") & (table["phenomenon"] == "p1")].iloc[0]
    for column, epoch in (("before", -1), ("after", best)):
        expected = of_pairs[of_pairs["epoch"] == epoch].iloc[0]
        assert row[f"accuracy_{column}"] == expected["accuracy"]
        assert row[f"mean_difference_{column}"] == pytest.approx(expected["mean_difference"])
    tested = table[table["dataset_type"] == "test"]
    assert tested["accuracy_before"].isna().all()
    assert tested["accuracy_after"].notna().sum() == 3  # contrasts have none


def test_many_phenomena_have_a_panel_each_and_data_are_not_mixed(tmp_path):
    files = data(tmp_path)
    given = {"probe_file": [pairs(tmp_path / "a", 9), pairs(tmp_path / "b" / "other", 9)]}
    run = do(tmp_path / "run", **{**files, **given}, epochs=1)
    figure = {f.stem: f for f in pair_figures(results(run))}["accuracy"]
    assert [panel.title for panel in figure.panels] == [f"p{number}" for number in range(9)]
    for panel in figure.panels:
        assert len(panel.series) == 2
        assert all(series.x.tolist() == [0.0, 1.0] for series in panel.series)


@pytest.mark.usefixtures("drawn_pages")
def test_a_report_of_pairs(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run)]) == 0
    assert {"accuracy.pdf", "accuracy_tests.csv", "pairs_in_short.csv"} <= {
        path.name for path in Path("report_figures").iterdir()
    }
    assert "Minimal pairs and contrasts" in Path("report.html").read_text("utf-8")
