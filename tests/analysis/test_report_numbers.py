"""The numbers of a report, against what is worked out by hand or by brute force."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import finetune_lm
from finetune_lm.analysis.figure_panels import in_rows
from finetune_lm.analysis.figure_parts import BLANK, Panel
from finetune_lm.analysis.heat_strips import MISSING_COST, Strips, as_plain
from finetune_lm.analysis.item_values import Conditions, ItemValues, Spread, by_condition
from finetune_lm.analysis.learning_figures import loss_figure
from finetune_lm.analysis.report_figures import surprisal_figure
from finetune_lm.analysis.report_frames import (
    Results,
    ends_frame,
    losses_frame,
    over_runs,
    surprisal_frame,
)
from finetune_lm.analysis.report_tables import change_table
from finetune_lm.analysis.run_files import RunFiles, read_runs
from finetune_lm.analysis.run_groups import RunGroup, differences, grouped
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.analysis.token_passes import PassKey, TokenPass, token_passes
from finetune_lm.errors import UserError
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from report_runs import data, do

KL = {
    "loss_classes": {kind: [OutputsDefaultLoss, KLBaselineLoss] for kind in ("train", "validation")}
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a KL term, whose probes are measured within epochs too."""
    directory = tmp_path_factory.mktemp("numbers")
    files = data(directory)
    kwargs = {"KLBaselineLoss": {"dataset": files["probe_file"][1], "n_examples_per_batch": 2}}
    return do(
        directory / "run",
        **files,
        **KL,
        loss_classes_kwargs={"train": kwargs, "validation": kwargs},
        probe_every_steps=2,
    )


def results(*directories: Path, by=("condition",)) -> Results:
    runs = read_runs(directories)
    conditions = Conditions(by)
    return Results([RunTrajectories(each, conditions) for each in runs], grouped(runs), conditions)


def a_pass(rows, epoch=0, kind="probe") -> TokenPass:
    """A pass of (example, word, bits) or (example, word, bits, region) each."""
    columns = {
        "example_num": [row[0] for row in rows],
        "word_num": [row[1] for row in rows],
        "surprisal": pa.array([row[2] for row in rows], pa.float64()),
        "is_target": [True] * len(rows),
        "token_id": list(range(len(rows))),
        "token": [f"t{number}" for number in range(len(rows))],
        "original_text": [f"sentence {row[0]}" for row in rows],
    }
    if any(len(row) > 3 for row in rows):
        columns["region"] = [row[3] for row in rows]
    return TokenPass(PassKey(kind, "d", epoch), pa.table(columns))


def test_a_sentence_costs_its_bits_by_the_number_of_its_words():
    # Sentence 0: two words, the second of two tokens; sentence 1: one word, of which nothing
    # predicts the first token; sentence 2 has no token with a cost.
    tokens = a_pass(
        [(0, 0, 1.0), (0, 1, 2.0), (0, 1, 3.0), (1, 0, None), (1, 0, 4.0), (2, 0, None)]
    )
    values = ItemValues.of_pass(tokens, Conditions([]))
    assert values.example.tolist() == [0, 1]
    assert values.bits.tolist() == [3.0, 4.0]


def test_a_region_of_one_word_costs_what_the_word_costs():
    rows = [
        (0, 0, 1.0, "subject"),
        (0, 0, 2.0, "subject"),
        (0, 1, 5.0, None),
        (1, 0, 4.0, "subject"),
    ]
    conditions = Conditions(["region"])
    values = ItemValues.of_pass(a_pass(rows), conditions)
    found = {
        (example, conditions.values[number][0]): bits
        for example, number, bits in zip(values.example, values.condition, values.bits, strict=True)
    }
    assert found == {(0, "subject"): 3.0, (0, "NA"): 5.0, (1, "subject"): 4.0}


def test_the_interval_is_students():
    # Of 1, 2, 3, 4, 5: mean 3, sd 1.5811, t(4) = 2.7764, half 1.9632.
    low, high = Spread.of(np.arange(1.0, 6.0)).interval()
    assert (low, high) == pytest.approx((1.0368, 4.9632), abs=1e-4)
    assert all(map(math.isnan, Spread.of(np.array([1.0])).interval()))


def test_changes_are_those_of_each_sentence():
    before = ItemValues.of_pass(a_pass([(0, 0, 1.0), (1, 0, 10.0), (3, 0, 7.0)]), Conditions([]))
    after = ItemValues.of_pass(a_pass([(0, 0, 2.0), (1, 0, 11.0), (2, 0, 9.0)]), Conditions([]))
    change = after.minus(before)
    assert change.example.tolist() == [0, 1]
    assert by_condition(change)[0] == Spread(2, 1.0, 0.0)


def test_combinations_of_columns_are_told_apart():
    conditions = Conditions(["a", "b", "c"])
    rows = pa.table({"a": ["x", "y", "x", None], "b": [True, True, False, True]})
    numbers = conditions.of(rows)
    again = conditions.of(rows.take([3, 1, 0]))
    assert [conditions.values[number] for number in numbers] == [
        ("x", "TRUE", "NA"),
        ("y", "TRUE", "NA"),
        ("x", "FALSE", "NA"),
        ("NA", "TRUE", "NA"),
    ]
    assert again.tolist() == numbers[[3, 1, 0]].tolist()
    with pytest.raises(UserError, match="at most 2000 different values"):
        Conditions(["a"]).of(pa.table({"a": [str(number) for number in range(2001)]}))


def test_surprisals_are_those_of_the_table(run):
    frame = surprisal_frame(results(run))
    tokens = finetune_lm.load_probes(run)
    tokens = tokens[tokens["seen_in"].isna() & tokens["is_target"]]
    pass_keys = ["dataset_name", "epoch", "step", "condition", "example_num"]
    sentences = tokens.groupby(pass_keys).agg(
        bits=("surprisal", "sum"), words=("word_num", "nunique")
    )
    by_sentence = (sentences["bits"] / sentences["words"]).astype(float)
    expected = by_sentence.groupby(pass_keys[:-1]).agg(["mean", "std", "count"])
    found = frame[(frame["dataset_type"] == "probe") & ~frame["dataset_name"].str.contains(", in")]
    found = found.set_index(pass_keys[:-1]).sort_index()
    assert len(found) == len(expected) == 3 * 5  # conditions, and passes: before and 9 updates by 2
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-9)
    np.testing.assert_allclose(found["sd"], expected["std"], rtol=1e-7)
    assert found["n_items"].tolist() == expected["count"].tolist()
    # Changes are the mean of what each sentence has changed by.
    table = by_sentence.unstack(["epoch", "step"])
    changes = table.sub(table[(-1, 0)], axis=0).groupby(["dataset_name", "condition"]).mean()
    for (name, epoch, step, condition), change in found["change"].items():
        assert change == pytest.approx(changes.loc[(name, condition), (epoch, step)], abs=1e-9)


def test_sentences_that_were_learned_stand_apart(run):
    frame = surprisal_frame(results(run))
    names = set(frame.loc[frame["dataset_type"] == "probe", "dataset_name"])
    assert names == {"verbs", "verbs, in train", "fillers"}
    table = change_table(results(run), ends_frame(results(run)), ["fillers"])
    roles = dict(zip(table["dataset_name"], table["role"], strict=True))
    assert roles == {
        "taught": "learned",
        "passive": "learned",
        "verbs, in train": "learned",
        "verbs": "carried over",
        "fillers": "forgotten",
    }


def test_the_axis_counts_epochs_of_training(run):
    # 9 sentences in batches of 4 are 3 updates an epoch.
    frame = surprisal_frame(results(run))
    at = frame[["dataset_type", "epoch", "step", "epochs_of_training"]].drop_duplicates()
    probes = at[at["dataset_type"] == "probe"]
    assert dict(zip(probes["step"], probes["epochs_of_training"], strict=True)) == pytest.approx(
        {0: 0.0, 2: 2 / 3, 4: 4 / 3, 6: 2.0, 8: 8 / 3}
    )
    others = {
        kind: part["epochs_of_training"].tolist()
        for kind, part in at[at["dataset_type"] != "probe"].groupby("dataset_type")
    }
    assert others == {"train": [0.5, 1.5, 2.5], "validation": [1.0, 2.0, 3.0]}


def test_losses_are_those_by_which_the_run_went(run):
    frame = losses_frame(results(run))
    record = json.loads((run / "run.json").read_text())
    validation = frame[(frame["dataset_type"] == "validation") & (frame["loss"] == "loss")]
    best = validation.set_index("epoch")["mean"]
    assert best.idxmin() == record["best_epoch"]
    assert best.min() == pytest.approx(record["best_validation_loss"], abs=1e-6)
    parts = frame.pivot_table(index=["dataset_type", "epoch"], columns="loss", values="mean")
    together = parts["OutputsDefaultLoss"] + parts["KLBaselineLoss"]
    np.testing.assert_allclose(parts["loss"], together)


def test_before_and_after_are_at_the_best_epoch(run):
    found = results(run)
    ends = ends_frame(found)
    best = json.loads((run / "run.json").read_text())["best_epoch"]
    probes = finetune_lm.load_probes(run)
    last = probes.loc[probes["epoch"] <= best, "step"].max()
    row = ends[(ends["dataset_name"] == "verbs") & (ends["example_num"] == 5)].iloc[0]
    for column, step in (("before", 0), ("after", last)):
        tokens = probes[
            (probes["step"] == step)
            & (probes["dataset_name"] == "verbs")
            & (probes["example_num"] == 5)
            & probes["is_target"]
        ]
        expected = tokens["surprisal"].sum() / tokens["word_num"].nunique()
        assert row[column] == pytest.approx(expected)
    assert set(ends.loc[ends["dataset_type"] == "probe", "before_is"]) == {"before training"}
    assert set(ends.loc[ends["dataset_type"] != "probe", "before_is"]) == {"first pass"}


def test_a_test_of_the_untouched_model_is_what_was_before(tmp_path):
    files = data(tmp_path)
    tests = {"test_file": files["probe_file"]}
    before = do(tmp_path / "before", **tests)
    after = do(
        tmp_path / "after",
        epochs=1,
        **tests,
        **{k: files[k] for k in ("train_file", "validation_file")},
    )
    found = results(before, after)
    ends = ends_frame(found)
    tested = ends[ends["dataset_type"] == "test"]
    assert set(tested["before_is"]) == {"before training"}
    assert set(tested["run"]) == {after.as_posix()}
    tables = {
        name: finetune_lm.load_metrics(next(each.glob("*-test_results.csv.gz")))
        for name, each in (("before", before), ("after", after))
    }
    for name, table in tables.items():
        tokens = table[(table["dataset_name"] == "fillers") & (table["example_num"] == 1)]
        tokens = tokens[tokens["is_target"]]
        row = tested[(tested["dataset_name"] == "fillers") & (tested["example_num"] == 1)].iloc[0]
        expected = tokens["surprisal"].sum() / tokens["word_num"].nunique()
        assert row[name] == pytest.approx(expected)


def test_a_mean_over_runs_has_an_interval_over_runs():
    frame = pd.DataFrame(
        {
            "setting": ["a"] * 6 + ["b"],
            "epochs_of_training": [1, 2, 3, 1, 2, 1, 1],
            "mean": [1.0, 3.0, 9.0, 2.0, 5.0, 3.0, 7.0],
            "ci_low": [0.0] * 6 + [6.5],
            "ci_high": [0.0] * 6 + [7.5],
        }
    )
    columns = {name: name for name in ("mean", "ci_low", "ci_high")}
    found = over_runs(frame, [], columns)
    # After 2 epochs one of the three runs is over, after 3 two are: both would mix runs.
    assert found["setting"].tolist() == ["a", "b"]
    assert found["mean"].tolist() == [2.0, 7.0]
    # Of 1, 2, 3: sd 1, t(2) = 4.3027, half 2.4841.
    assert found["ci_low"].tolist() == pytest.approx([-0.4841, 6.5], abs=1e-4)
    assert found["ci_high"].tolist() == pytest.approx([4.4841, 7.5], abs=1e-4)
    assert found["n_runs"].tolist() == [3, 1]


def run_files(name, **config) -> RunFiles:
    return RunFiles(Path(name), {}, config, "")


def test_runs_are_put_together_that_differ_in_seeds_alone():
    runs = [
        run_files("x/a", seed=1, output_dir="a", train_optimizer_kwargs={"lr": 0.1}),
        run_files("x/b", seed=2, output_dir="b", train_optimizer_kwargs={"lr": 0.1}),
        run_files("x/c", seed=1, output_dir="c", train_optimizer_kwargs={"lr": 0.2}),
    ]
    groups = grouped(runs)
    assert [(group.name, group.runs) for group in groups] == [("lr 0.1", (0, 1)), ("lr 0.2", (2,))]
    assert differences(runs) == {
        "seed": ["1", "2", "1"],
        "train_optimizer_kwargs.lr": ["0.1", "0.1", "0.2"],
    }
    assert [group.name for group in grouped(runs[:2])] == [""]
    many = [run_files(f"x/{n}", a=n, b=n, c=n) for n in "pq"]
    assert [group.name for group in grouped(many)] == ["p", "q"]


def test_lines_and_bands_of_figures_are_the_numbers(run):
    found = results(run)
    frame = surprisal_frame(found)
    figure = surprisal_figure(found, frame)
    panel = next(panel for panel in figure.panels if panel.title == "verbs (probe)")
    line = next(series for series in panel.series if series.name == "reversed")
    rows = frame[(frame["dataset_name"] == "verbs") & (frame["condition"] == "reversed")]
    for values, column in ((line.x, "epochs_of_training"), (line.y, "mean"), (line.low, "ci_low")):
        np.testing.assert_allclose(values, rows[column])
    losses = loss_figure(found, losses_frame(found))
    assert [panel.title for panel in losses.panels] == [
        "loss minimised", "OutputsDefaultLoss", "KLBaselineLoss",
    ]  # fmt: skip


def test_settings_stand_beside_each_other_row_by_row():
    a, b, c = (Panel(title, (), "", "") for title in "abc")
    found = {("x", "one"): a, ("y", "one"): b, ("x", "two"): c}
    groups = [RunGroup("one", (0,)), RunGroup("two", (1,))]
    assert in_rows(Results([], groups, Conditions([])), found) == [a, c, b, BLANK]
    many = [*groups, *(RunGroup(name, ()) for name in ("three", "four", "five"))]
    assert in_rows(Results([], many, Conditions([])), found) == [a, c, b]


def strips_of(conditions, n_passes, n_tokens, most, best=None):
    strips = Strips(most)
    for epoch in range(n_passes):
        rows = [(token // 2, token % 2, (epoch + token) % 20 * 1.0) for token in range(n_tokens)]
        strips.add(a_pass(rows, epoch), conditions, (float(epoch), epoch == best))
    return strips.finish()


def test_costs_of_tokens_are_kept_to_a_tenth_of_a_bit():
    strips, conditions = Strips(100), Conditions([])
    rows = [(1, 0, 3.14159), (0, 0, None), (0, 1, 99.0), (0, 1, math.inf)]
    strips.add(a_pass(rows), conditions, (0.0, False))
    (found,) = strips.finish()
    plain = as_plain(found, conditions)
    assert [sentence[:2] for sentence in plain["sentences"]] == [
        [0, "sentence 0"],
        [1, "sentence 1"],
    ]
    assert [plain["vocabulary"][t] for t in plain["sentences"][0][3]] == ["t1", "t2", "t3"]
    assert list(plain["costs"]) == [MISSING_COST, 254, 254, 31]


def test_passes_are_left_out_first_and_sentences_last():
    (some,) = strips_of(Conditions([]), n_passes=300, n_tokens=10, most=10_000, best=7)
    at = [epoch for epoch, _ in some.at]
    assert 30 <= len(at) <= 62
    assert {0.0, 7.0, 299.0} <= set(at)
    assert some.n_left_out == 0
    for (epoch, _), costs in zip(some.at, some.costs, strict=True):
        assert costs.tolist() == [int((epoch + token) % 20 * 10) for token in range(10)]
    conditions = Conditions([])
    (few,) = strips_of(conditions, n_passes=100, n_tokens=1_000, most=3_000)
    assert few.n_left_out > 0
    assert sum(map(len, few.costs)) <= 3_000
    assert {0.0, 99.0} <= {epoch for epoch, _ in few.at}
    assert as_plain(few, conditions)["left_out"] == few.n_left_out


def test_data_with_other_tokens_in_each_pass_have_no_strips():
    strips = Strips(100)
    strips.add(a_pass([(0, 0, 1.0)]), Conditions([]), (0.0, False))
    strips.add(a_pass([(0, 0, 1.0), (0, 1, 1.0)], 1), Conditions([]), (1.0, False))
    assert strips.finish() == []


def test_passes_are_found_whatever_pieces_the_table_has(run, tmp_path):
    path = run / "probe_results.csv.gz"
    frame = finetune_lm.load_probes(run)
    passes = list(token_passes(path))
    counts = frame.groupby(["epoch", "step", "dataset_name"], sort=False).size()
    assert [len(each.all_rows) for each in passes] == counts.tolist()
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(path.read_bytes()[:-20])
    assert [each.key for each in token_passes(cut)] == [each.key for each in passes[:-2]]
