"""What tokens cost before the training, beside what they cost later."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import finetune_lm
from finetune_lm import UserError
from finetune_lm.data.batch import Batch
from finetune_lm.recording.baseline_surprisals import BaselineSurprisals
from finetune_lm.training.checkpoints import unkept
from setups import PROBES, arguments, setup

NAME = "baseline_surprisal"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def joined(rows):
    """The same column, by looking each row up in the pass before the training."""
    rows = rows.reset_index(drop=True)
    rows["number"] = rows.groupby(
        ["dataset_type", "dataset_name", "epoch", "step", "example_num", "input_text", "generated"],
        dropna=False,
    ).cumcount()
    # A masked token may be left as it is, so that the text does not tell which is asked for.
    key = [
        *("dataset_name", "example_num", "input_text", "input_label", "number", "token"),
        *("word_num", "token_num_in_word", "generated"),
    ]
    before = rows[(rows["epoch"] == -1) & (rows["dataset_type"] != "train")]
    before = before.drop_duplicates(key).set_index(key)["surprisal"].to_dict()
    return np.array(
        [
            np.nan if kind == "train" or at[-1] else before.get(at, np.nan)
            for kind, at in zip(
                rows["dataset_type"], rows[key].itertuples(index=False, name=None), strict=True
            )
        ],
        dtype=float,
    )


@pytest.mark.parametrize("kind", ["lm", "mlm", "seq2seq"])
def test_it_is_joined_from_the_pass_before_the_training(kind):
    """Masks of the validation data are drawn anew for each batch, those of the probes are not."""
    model, data = setup(kind, **PROBES, max_validation_samples=8, max_test_samples=2)
    if kind == "mlm":
        # Of which some come out as they were before.
        data["data_preprocessing_fn_kwargs"] = {"validation": {"mask_prop": 0.01}}
        data["max_validation_samples"] = 60
    result = finetune_lm.run(*arguments(model, {**data, "output_dir": "out"}))
    for rows in (result.metrics, result.probe_results):
        place = list(rows.columns).index("predicted_token_surprisal")
        assert rows.columns[place + 1] == NAME
        rows["generated"] = rows.get("sequence_type", "") == "generated_sequence"
        rows["step"] = rows.get("step", 0)
        expected = joined(rows)
        np.testing.assert_allclose(rows[NAME].to_numpy(float), expected, rtol=0, atol=1e-6)
        assert np.isfinite(expected[rows["epoch"] >= 0]).any()
    rows = result.metrics
    assert rows[NAME][rows["dataset_type"] == "train"].isna().all()
    later = rows[(rows["dataset_type"] == "validation") & (rows["epoch"] >= 0)]
    later = later[~later["generated"]]
    assert later[NAME].isna().any() == (kind != "lm")
    probes = result.probe_results
    assert probes[NAME][~probes["generated"]].notna().all()
    changed = probes[(probes["epoch"] >= 0) & ~probes["generated"]]
    assert (changed[NAME] - changed["surprisal"]).abs().max() > 1e-3
    assert NAME not in result.test_results


def test_there_is_none_without_a_pass_before_the_training():
    model, data = setup("lm", eval_before_training=False, epochs=1, output_dir="out")
    result = finetune_lm.run(*arguments(model, data))
    assert NAME not in result.metrics


def test_metadata_cannot_have_its_name(tmp_path):
    (tmp_path / "x.txt").write_text("A man.\n", "utf-8")
    (tmp_path / "x_metadata.json").write_text(f'{{"{NAME}": 1}}\n', "utf-8")
    model, data = setup("lm", test_file=["x.txt"], output_dir="out")
    with pytest.raises(UserError, match=f"must not have the key '{NAME}'"):
        finetune_lm.run(*arguments(model, data))


def batch_of(rows, labels, examples, padding):
    """A batch whose rows are padded to a width of their own."""
    width = max(map(len, rows)) + padding

    def padded(sequences, value):
        return torch.tensor([[*s, *[value] * (width - len(s))] for s in sequences])

    mask = padded([[1] * len(row) for row in rows], 0)
    inputs = {"input_ids": padded(rows, 0), "attention_mask": mask, "labels": padded(labels, -100)}
    n = len(rows)
    return Batch(
        inputs, np.array(examples), mask.bool(), torch.zeros(n), np.ones(n, bool), [""] * n,
        [""] * n,
    )  # fmt: skip


ROWS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=5)


@given(passes=st.lists(ROWS, min_size=1, max_size=4), asked=ROWS, padding=st.integers(0, 3))
def test_an_example_is_found_again_by_all_that_its_costs_depend_on(passes, asked, padding):
    kept, known = BaselineSurprisals(), {}
    cost = 0.0
    for rows in passes:
        batch = batch_of(rows, rows, range(len(rows)), 0)
        row = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        costs = np.arange(cost, cost + len(row), dtype=np.float32)
        cost += len(row)
        kept.keep(batch, row, costs)
        for i, each in enumerate(rows):
            known[i, tuple(each)] = costs[row == i]
    # Also where no token of a data set has a row.
    assert unkept(kept.state_dict()) is None
    buffer = io.BytesIO()
    torch.save(kept.state_dict(), buffer)
    buffer.seek(0)
    again = BaselineSurprisals()
    again.load_state_dict(torch.load(buffer, weights_only=True))
    batch = batch_of(asked, asked, range(len(asked)), padding)
    row = np.repeat(np.arange(len(asked)), [len(each) for each in asked])
    expected = [
        known.get((i, tuple(each)), np.full(len(each), np.nan)) for i, each in enumerate(asked)
    ]
    for each in (kept, again):
        values, is_there = each.of(batch, row)
        np.testing.assert_array_equal(values, np.concatenate(expected))
        np.testing.assert_array_equal(is_there, ~np.isnan(values))
    other = batch_of(asked, [[9] * len(each) for each in asked], range(len(asked)), padding)
    assert not kept.of(other, row)[1].any()
