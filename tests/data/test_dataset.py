"""The data set and its batches: everything stays in step with the lines of the file."""

from __future__ import annotations

import sys

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import family
from finetune_lm.errors import UserError
from helpers import ACTIVE, dataset, examples

METADATA = [{"k": i} for i in range(3)]
BOTH = ["once", "per_batch"]


def test_the_parts_of_a_data_set(gpt2):
    data = dataset(gpt2, examples(metadata=METADATA))
    assert isinstance(data.dataset, datasets.Dataset)
    assert data.columns == ["input_ids", "attention_mask", "labels"]
    assert data.texts == data.labels == ACTIVE
    assert data.metadata == METADATA
    assert len(data) == 3
    assert "3 examples for a causal language model" in repr(data)
    assert "identity once" in repr(data)


@pytest.mark.parametrize("strategy", BOTH)
def test_hugging_faces_table_is_made_for_those_who_ask(gpt2, monkeypatch, strategy):
    """To import ``datasets`` takes long, and its columns are read row by row."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        data = dataset(gpt2, examples(["to be found nowhere else", *ACTIVE]), strategy=strategy)
        assert sum(len(batch) for batch in data.batches(2)) == 4
    assert data.dataset["input_ids"][:] == data.input_ids.tolist()
    assert data.dataset.column_names == data.columns


def test_rows_hold_all_four_parts(gpt2):
    data = dataset(gpt2, examples(metadata=METADATA))
    row = data[1]
    assert set(row) == {"dataset", "texts", "labels", "metadata"}
    assert row["texts"] == row["labels"] == ACTIVE[1]
    assert row["metadata"] == {"k": 1}
    assert row["dataset"]["input_ids"] == data.dataset[1]["input_ids"]
    assert data[-1]["texts"] == ACTIVE[-1]
    assert data[np.int64(2)]["metadata"] == {"k": 2}


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], [2, 0, 2], slice(None, None, -1), []])
def test_several_rows(gpt2, index):
    data = dataset(gpt2, examples(metadata=METADATA))
    expected = ACTIVE[index] if isinstance(index, slice) else [ACTIVE[i] for i in index]
    rows = data[index]
    assert rows["texts"] == expected
    assert len(rows["metadata"]) == len(rows["dataset"]["input_ids"]) == len(expected)


def test_rows_that_are_not_there(gpt2):
    with pytest.raises(IndexError):
        dataset(gpt2)[3]
    with pytest.raises(IndexError):
        dataset(gpt2)[[0, 7]]


def test_a_lm_ignores_labels_of_the_file(gpt2):
    data = dataset(gpt2, examples(labels=["x", "y", "z"]))
    assert data.labels == ACTIVE
    batch = next(data.batches(3))
    real = batch.inputs["attention_mask"].bool()
    assert (batch.inputs["labels"][real] == batch.inputs["input_ids"][real]).all()


def test_padding_is_never_a_label_and_an_eos_in_the_text_is(gpt2):
    """GPT-2 pads with EOS, since it has no padding token."""
    data = dataset(gpt2, append_eos=True)
    batch = next(data.batches(3))
    inputs = batch.inputs
    eos = gpt2.tokenizer.eos_token_id
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    assert (inputs["input_ids"][padding] == eos).all()
    assert (inputs["labels"][padding] == -100).all()
    last = inputs["attention_mask"].sum(dim=1) - 1
    assert (inputs["labels"][torch.arange(3), last] == eos).all()
    # On the right.
    assert (inputs["attention_mask"].diff(dim=1) <= 0).all()


def test_padding_counts_if_it_is_told_to(gpt2):
    data = dataset(gpt2, ignore_padding=False)
    inputs = next(data.batches(3)).inputs
    assert (inputs["labels"][inputs["attention_mask"] == 0] == gpt2.tokenizer.eos_token_id).all()
    with torch.no_grad():
        counted = gpt2.model(**inputs).loss
        ignored = gpt2.model(**next(dataset(gpt2).batches(3)).inputs).loss
    assert counted != ignored


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_pad_to_length(name):
    inputs = next(dataset(family(name), pad_to_length=50).batches(2)).inputs
    assert {tensor.shape for tensor in inputs.values()} == {(2, 50)}


def test_batches_cover_everything_once_in_order(gpt2):
    data = dataset(gpt2)
    assert [len(batch) for batch in data.batches(2)] == [2, 1]
    assert np.concatenate([batch.example for batch in data.batches(2)]).tolist() == [0, 1, 2]
    order = np.array([2, 0, 1])
    assert np.concatenate([b.example for b in data.batches(2, order)]).tolist() == [2, 0, 1]
    assert data.n_batches(2) == 2


def test_seq2seq_labels_have_their_own_length():
    t5 = family("t5")
    data = dataset(t5, examples(labels=["a much longer label than the text is, by far"] * 3))
    inputs = next(data.batches(3)).inputs
    expected = t5.tokenizer(data.labels[0])["input_ids"]
    assert inputs["labels"][1].tolist() == expected
    assert inputs["labels"].shape[1] > inputs["input_ids"].shape[1]


def test_mlm_labels_of_another_length():
    with pytest.raises(UserError) as caught:
        dataset(family("bert"), examples(["a b", "a"], ["a c", "a b c"]))
    assert "data.txt.gz, line 2: a masked language model needs a label for each token" in str(
        caught.value
    )


@given(st.permutations(range(3)), st.integers(1, 4), st.sampled_from(["gpt2", "bert", "t5"]))
def test_batches_hold_the_rows_they_say(order, size, name):
    fam = family(name)
    data = dataset(fam)
    for batch in data.batches(size, np.array(order)):
        for i, example in enumerate(batch.example):
            mask = batch.inputs["attention_mask"][i].bool()
            ids = batch.inputs["input_ids"][i][mask].tolist()
            assert ids == data.dataset[int(example)]["input_ids"]
            labels = batch.inputs["labels"][i]
            assert labels[batch.is_label[i]].tolist() == data.dataset[int(example)]["labels"]
            assert (labels[~batch.is_label[i]] == -100).all()


def test_mlm_labels_of_another_length_are_found_also_where_both_are_cut():
    lines = examples(["a b [MASK] d e f g h"], ["a b c d"])
    with pytest.raises(UserError, match="'text' has 10 tokens and 'labels' has 6"):
        dataset(family("bert"), lines, max_length=5)


def test_cut_tokens_are_counted_once(capsys):
    lines = examples(["a b [MASK] d e f g h"], ["a b c d e f g h"])
    dataset(family("bert"), lines, max_length=5)
    assert "and 5 of their tokens were cut off" in capsys.readouterr().err
