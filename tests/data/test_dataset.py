"""The data set and its batches: everything stays in step with the lines of the file."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import family
from finetune_lm import data_preprocessing
from finetune_lm.data import encoding
from finetune_lm.errors import UserError
from helpers import ACTIVE, WithoutOffsets, dataset, examples

METADATA = [{"k": i} for i in range(3)]
BOTH = ["once", "per_batch"]


@pytest.fixture(scope="module")
def gpt2():
    return family("gpt2")


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


def test_tokenizing_in_several_processes_gives_the_same(gpt2):
    many = examples([f"{text} {i}" for i in range(10) for text in ACTIVE])
    one = dataset(gpt2, many, overwrite_cache=True)
    two = dataset(gpt2, many, overwrite_cache=True, num_workers=2)
    assert one.dataset.to_dict() == two.dataset.to_dict()


def test_the_cache_is_used_until_it_is_overwritten(gpt2, monkeypatch):
    calls = []
    original = encoding._EncodeRows.__call__
    monkeypatch.setattr(
        encoding._EncodeRows,
        "__call__",
        lambda self, rows: calls.append(1) or original(self, rows),
    )
    lines = examples(["only in this test"])
    first = dataset(gpt2, lines)
    assert len(calls) == 1
    again = dataset(gpt2, lines)
    assert len(calls) == 1
    assert again.dataset.to_dict() == first.dataset.to_dict()
    dataset(gpt2, lines, overwrite_cache=True)
    assert len(calls) == 2
    dataset(gpt2, lines, append_eos=True)
    dataset(gpt2, lines, max_length=3)
    dataset(family("llama"), lines)
    assert len(calls) == 5


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    # As a disk may have it: another token, or another letter of the checksum.
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes())),
}


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("suffix", [".arrow", ".json"])
def test_a_damaged_cache_is_made_anew(gpt2, monkeypatch, tmp_path, capsys, kind, suffix):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    lines = examples([f"The {noun} has always broken the glass." for noun in ("man", "boy")] * 50)
    first = dataset(gpt2, lines).dataset.to_dict()
    [path] = tmp_path.glob(f"finetune_lm/*{suffix}")
    DAMAGE[kind](path)
    assert dataset(gpt2, lines).dataset.to_dict() == first
    assert capsys.readouterr().err == ""
    if kind == "a directory":  # somebody else's, and left alone where it cannot be replaced
        return
    # And kept, so that the run after it finds it.
    monkeypatch.setattr(encoding._EncodeRows, "__call__", None)
    assert dataset(gpt2, lines).dataset.to_dict() == first


def test_without_a_cache_directory(gpt2, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / ("x" * 300)):
        monkeypatch.setenv("HF_DATASETS_CACHE", str(directory))
        assert len(dataset(gpt2, examples(["another line"]))) == 1


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_a_cache_that_cannot_be_written_is_done_without(gpt2, monkeypatch, tmp_path, call):
    """A disk that is full or read-only, at any step of it."""
    import pyarrow as pa

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    where = {
        "open": (pa, "OSFile"),
        "write": (pa.ipc, "new_stream"),
        "fsync": (os, "fsync"),
        "rename": (Path, "replace"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[call], full)
        data = dataset(gpt2, examples(["a line that cannot be kept"]))
    assert len(data) == 1
    assert not list(tmp_path.rglob("*.tmp"))


# Preprocessing


def double(inputs, tokenizer):
    """Each example twice, the third thrice."""
    repeats = torch.tensor([2] * len(inputs["input_ids"]))
    repeats[-1] += 1
    made = {key: tensor.repeat_interleave(repeats, dim=0) for key, tensor in inputs.items()}
    padded = torch.full((len(made["input_ids"]),), -1)
    padded[: len(repeats)] = repeats
    return {**made, "labels": made["input_ids"].clone(), "expanded_lengths": padded}


@pytest.mark.parametrize("strategy", BOTH)
def test_expansion_keeps_everything_in_step(gpt2, strategy):
    data = dataset(gpt2, examples(metadata=METADATA), function=double, strategy=strategy)
    [batch] = data.batches(len(data))
    assert len(batch) == 7
    if strategy == "once":
        assert data.texts == [ACTIVE[i] for i in (0, 0, 1, 1, 2, 2, 2)]
        assert [m["k"] for m in data.metadata] == data.example_nums.tolist()
        assert data.example_nums.tolist() == [0, 0, 1, 1, 2, 2, 2]
    else:
        assert batch.example.tolist() == [0, 0, 1, 1, 2, 2, 2]
    expected = [ACTIVE[i] for i in (0, 0, 1, 1, 2, 2, 2)]
    assert [t.removeprefix("<|endoftext|>") for t in batch.input_texts] == expected


def shout(inputs, tokenizer):
    """Another sentence: its labels no longer read as the file's."""
    ids = torch.tensor([tokenizer("SO!")["input_ids"]] * len(inputs["input_ids"]))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


@pytest.mark.parametrize("strategy", BOTH)
def test_label_texts_are_read_anew_for_functions_that_say_so(gpt2, strategy, request):
    kept = dataset(gpt2, function=shout, strategy=strategy)
    assert next(kept.batches(1)).input_labels == [ACTIVE[0]]
    data_preprocessing.UPDATE_LABEL_FNS.add(shout)
    request.addfinalizer(lambda: data_preprocessing.UPDATE_LABEL_FNS.discard(shout))
    updated = dataset(gpt2, function=shout, strategy=strategy)
    assert next(updated.batches(1)).input_labels == ["SO!"]
    if strategy == "once":
        assert updated.labels == ["SO!"] * 3


def test_per_batch_is_computed_anew_each_time(gpt2):
    calls = []

    def count(inputs, tokenizer):
        calls.append(len(inputs["input_ids"]))
        return {**inputs, "labels": inputs["input_ids"].clone()}

    data = dataset(gpt2, function=count, strategy="per_batch")
    assert calls == []
    list(data.batches(2))
    list(data.batches(2))
    assert calls == [2, 1, 2, 1]
    calls.clear()
    list(dataset(gpt2, function=count, strategy="once").batches(2))
    assert calls == [3]


def test_the_function_gets_its_kwargs_and_leaves_the_data_alone(gpt2):
    seen = {}

    def spoil(inputs, tokenizer, amount):
        seen["amount"], seen["tokenizer"] = amount, tokenizer
        inputs["input_ids"] += amount
        return {**inputs, "labels": inputs["input_ids"].clone()}

    data = dataset(gpt2, function=spoil, strategy="per_batch", kwargs={"amount": 1})
    first = next(data.batches(3)).inputs["input_ids"]
    second = next(data.batches(3)).inputs["input_ids"]
    assert torch.equal(first, second)
    assert seen == {"amount": 1, "tokenizer": gpt2.tokenizer}


def test_a_function_without_labels_gets_the_inputs_as_labels(gpt2):
    data = dataset(gpt2, function=lambda inputs, tokenizer: inputs)
    assert data.dataset["labels"][0] == data.dataset["input_ids"][0]


BAD = {
    "no inputs": (lambda i, t: {}, "must return a dictionary with 'input_ids' but returned"),
    "unexplained number": (
        lambda i, t: {k: v[:1] for k, v in i.items()},
        "made 1 examples of 3 and must say how many of each",
    ),
    "labels of another number": (
        lambda i, t: {**i, "labels": i["input_ids"][:2]},
        "must return as many labels as inputs but returned 2 and 3",
    ),
    "wrong expansion": (
        lambda i, t: {**i, "expanded_length": torch.tensor([1, 1, 2])},
        "must have one number for each of 3 examples, 3 in all, but has 3, 4 in all",
    ),
    "inputs that are no tensor": (
        lambda i, t: {**i, "input_ids": i["input_ids"].tolist()},
        r"must return 'input_ids' as a tensor of whole numbers, .* but returned list",
    ),
    "inputs of NumPy": (
        lambda i, t: {**i, "input_ids": i["input_ids"].numpy()},
        "must return 'input_ids' as a tensor .* but returned ndarray",
    ),
    "inputs with fractions": (
        lambda i, t: {**i, "input_ids": i["input_ids"] + 0.5},
        "must return 'input_ids' as a tensor .* but returned float32 of shape",
    ),
    "one example": (
        lambda i, t: {key: value[0] for key, value in i.items()},
        r"must return 'input_ids' as a tensor .* but returned int64 of shape \(\d+,\)",
    ),
    "nothing as labels": (
        lambda i, t: {**i, "labels": None},
        "must return 'labels' as a tensor .* but returned NoneType",
    ),
    "a flat mask": (
        lambda i, t: {**i, "attention_mask": i["attention_mask"].sum(1)},
        "must return 'attention_mask' as a tensor .* but returned int64 of shape",
    ),
    "a mask of another width": (
        lambda i, t: {**i, "attention_mask": i["attention_mask"][:, 1:]},
        "must return an 'attention_mask' of the shape of its 'input_ids'",
    ),
    "a mask with other numbers": (
        lambda i, t: {**i, "attention_mask": i["attention_mask"] * 2},
        "must return an 'attention_mask' that is 1 for each token",
    ),
    "padding on the left": (
        lambda i, t: {key: value.flip(1) for key, value in i.items()},
        "must return an 'attention_mask' that is 1 for each token",
    ),
    "a hole in the mask": (
        lambda i, t: {**i, "attention_mask": i["attention_mask"].index_fill(1, torch.tensor(1), 0)},
        "must return an 'attention_mask' that is 1 for each token",
    ),
    "an id that is too large": (
        lambda i, t: {**i, "input_ids": i["input_ids"] + 10**6},
        "must return 'input_ids' of tokens that the model has, from 0 to .* but returned 100",
    ),
    "an id below 0": (
        lambda i, t: {**i, "input_ids": -i["input_ids"] - 1},
        "must return 'input_ids' of tokens that the model has, from 0 to .* but returned -",
    ),
    "a label that is too large": (
        lambda i, t: {**i, "labels": i["input_ids"] + 10**6},
        "must return 'labels' of tokens that the model has, .* or -100 where none counts, but",
    ),
    "a label below 0": (
        lambda i, t: {**i, "labels": i["input_ids"] * 0 - 1},
        "must return 'labels' of tokens that the model has, .* but returned -1",
    ),
    "words for the expansion": (
        lambda i, t: {**i, "expanded_lengths": ["a", "b", "c"]},
        "'expanded_lengths' must be whole numbers but is list",
    ),
    "no mask": (
        lambda i, t: {"input_ids": i["input_ids"]},
        "must return an 'attention_mask' for its 3 examples",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_functions_that_go_wrong(gpt2, case):
    function, message = BAD[case]
    with pytest.raises(UserError, match=message):
        dataset(gpt2, function=function, model=gpt2.model)


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


# Found by review: each went wrong before.


def test_python_tokenizers_are_not_cached(monkeypatch):
    """Nothing describes all that they do, so an earlier result could be another tokenizer's."""
    fam = family("bert")
    slow = fam._replace(tokenizer=WithoutOffsets(fam.tokenizer))
    calls = []
    original = encoding._EncodeRows.__call__
    monkeypatch.setattr(
        encoding._EncodeRows,
        "__call__",
        lambda self, rows: calls.append(1) or original(self, rows),
    )
    for _ in range(2):
        dataset(slow, examples(["some words"]))
    assert len(calls) == 2


def test_mlm_labels_of_another_length_are_found_also_where_both_are_cut():
    lines = examples(["a b [MASK] d e f g h"], ["a b c d"])
    with pytest.raises(UserError, match="'text' has 10 tokens and 'labels' has 6"):
        dataset(family("bert"), lines, max_length=5)


def test_cut_tokens_are_counted_once(capsys):
    lines = examples(["a b [MASK] d e f g h"], ["a b c d e f g h"])
    dataset(family("bert"), lines, max_length=5)
    assert "and 5 of their tokens were cut off" in capsys.readouterr().err


def only_first_aligned(inputs, tokenizer):
    """The labels of the first example stay its tokens; the others' become other tokens."""
    labels = inputs["input_ids"].clone()
    labels[1:, 1:] = labels[1:, 1:].roll(1, dims=1)
    return {**inputs, "labels": labels}


@pytest.mark.parametrize("strategy", BOTH)
def test_alignment_is_of_each_example(gpt2, strategy):
    data = dataset(gpt2, function=only_first_aligned, strategy=strategy)
    [batch] = data.batches(3)
    assert batch.aligned.tolist() == [True, False, False]


def longer(inputs, tokenizer):
    return {key: torch.cat([tensor, tensor], dim=1) for key, tensor in inputs.items()}


@pytest.mark.parametrize("padding", [None, 12])
def test_a_function_that_makes_texts_too_long(gpt2, padding):
    with pytest.raises(UserError, match=r"longer must not make examples longer .*\(12 tokens\)"):
        dataset(gpt2, function=longer, max_length=12, pad_to_length=padding)


def test_batches_that_a_function_drops_are_left_out(gpt2):
    def drop_the(inputs, tokenizer):
        keep = inputs["input_ids"][:, 1] != tokenizer("The")["input_ids"][0]
        kept = {key: tensor[keep] for key, tensor in inputs.items()}
        return {**kept, "labels": kept["input_ids"].clone(), "expanded_lengths": keep.long()}

    data = dataset(gpt2, function=drop_the, strategy="per_batch")
    assert [batch.example.tolist() for batch in data.batches(1)] == [[2]]


def test_seq2seq_examples_without_any_label():
    def ignore(inputs, tokenizer):
        return {**inputs, "labels": torch.full_like(inputs["input_ids"], -100)}

    batch = next(dataset(family("t5"), function=ignore).batches(2))
    assert batch.inputs["labels"].shape[1] >= 1
    assert (batch.inputs["labels"] == -100).all()


def test_labels_of_another_shape_than_a_lms_inputs(gpt2):
    def cut(inputs, tokenizer):
        return {**inputs, "labels": inputs["input_ids"][:, 1:]}

    with pytest.raises(UserError, match="must return a label for each input token"):
        dataset(gpt2, function=cut)


def test_a_function_that_returns_nothing(gpt2):
    message = "must return a dictionary with 'input_ids' but returned None"
    with pytest.raises(UserError, match=message):
        dataset(gpt2, function=lambda inputs, tokenizer: None)
