"""What preprocessing functions make of a data set, and what they must not."""

from __future__ import annotations

import pytest
import torch

from families import family
from finetune_lm import data_preprocessing
from finetune_lm.errors import UserError
from helpers import ACTIVE, dataset, examples

METADATA = [{"k": i} for i in range(3)]
BOTH = ["once", "per_batch"]


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


def longer(inputs, tokenizer):
    return {key: torch.cat([tensor, tensor], dim=1) for key, tensor in inputs.items()}


@pytest.mark.parametrize("padding", [None, 12])
def test_a_function_that_makes_texts_too_long(gpt2, padding):
    with pytest.raises(UserError, match=r"longer must not make examples longer .*\(12 tokens\)"):
        dataset(gpt2, function=longer, max_length=12, pad_to_length=padding)


def test_labels_of_another_shape_than_a_lms_inputs(gpt2):
    def cut(inputs, tokenizer):
        return {**inputs, "labels": inputs["input_ids"][:, 1:]}

    with pytest.raises(UserError, match="must return a label for each input token"):
        dataset(gpt2, function=cut)


def test_a_function_that_returns_nothing(gpt2):
    message = "must return a dictionary with 'input_ids' but returned None"
    with pytest.raises(UserError, match=message):
        dataset(gpt2, function=lambda inputs, tokenizer: None)
