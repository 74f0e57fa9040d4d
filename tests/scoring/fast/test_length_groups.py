from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from families import family
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.fast import ragged_kinds
from finetune_lm.scoring.fast.cross_entropy import CrossEntropy
from finetune_lm.scoring.fast.length_groups import in_groups
from finetune_lm.scoring.fast.output_layer import OutputLayer
from finetune_lm.scoring.fast.ragged import split
from helpers import assert_same_gradient, dataset, examples

SHORT, LONG = "The man drank.", "She opened the old box and they drank a glass of cold water again."


def batch_of(fam, texts, labels=None):
    data = dataset(fam, examples(texts, labels))
    [batch] = data.batches(len(texts))
    rows, positions = data.task.predictions(batch.inputs["labels"])
    targets = batch.inputs["labels"][rows, positions + data.task.label_offset]
    inputs = data.task.without_labels(fam.model, batch.inputs)
    return batch, inputs, rows, positions, targets


def test_a_cut_by_hand():
    """3 x 4 + 2 x 10 places are fewer than 5 x 10, or than with any other cut."""
    assert [part.tolist() for part in split(np.array([10, 4, 3, 9, 2]))] == [[1, 2, 4], [0, 3]]
    assert [part.tolist() for part in split(np.array([5, 5, 5]))] == [[0, 1, 2]]
    assert [part.tolist() for part in split(np.array([5]))] == [[0]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_no_cut_takes_fewer_places(lengths):
    def places(parts):
        return sum(len(part) * max(part) for part in parts if part)

    given_lengths = np.array(lengths)
    parts = split(given_lengths)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    in_order = sorted(lengths)
    least = min(places([in_order[:i], in_order[i:]]) for i in range(len(lengths)))
    assert places([given_lengths[part].tolist() for part in parts]) == least


@pytest.mark.parametrize("name", ["t5", "flan-t5", "bart"])
@pytest.mark.parametrize("swapped", [False, True])
def test_two_groups_and_one_row_come_to_the_same(name, swapped, monkeypatch):
    """Long and short inputs with labels as long, or with the others' labels.

    In float64, since the gradients of some random models are mostly rounding in float32.
    """
    fam = family(name)
    fam.model.double()
    texts = [SHORT, SHORT, LONG, SHORT, SHORT, "It broke.", "It broke."]
    labels = texts[::-1] if swapped else texts
    batch, inputs, rows, positions, targets = batch_of(fam, texts, labels)
    short, long = in_groups(inputs, rows, positions)
    assert len(long.inputs["input_ids"]) == (2 if swapped else 1)
    for part in ("input_ids", "decoder_input_ids"):
        assert short.inputs[part].shape[1] < inputs[part].shape[1]
    parameters = list(fam.model.parameters())
    outputs = fam.model(**batch.inputs)
    expected = torch.nn.functional.cross_entropy(
        outputs.logits[rows, positions].double(), targets, reduction="none"
    ).float()
    plain = torch.autograd.grad(outputs.loss, parameters, allow_unused=True)
    for is_ragged in (True, False):
        if not is_ragged:
            monkeypatch.setattr(ragged_kinds, "PAIR_TYPES", frozenset())
        layer = OutputLayer(fam.model)
        loss, nll, *_ = layer.judged(CrossEntropy(targets), inputs, rows, positions)
        assert layer.selects
        assert layer.is_ragged == is_ragged
        torch.testing.assert_close(nll, expected, rtol=1e-4, atol=1e-4)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for one, other in zip(found, plain, strict=True):
            assert_same_gradient(one, other)


def test_examples_that_nothing_is_asked_about_stay_out():
    fam = family("t5")
    _, inputs, rows, positions, _ = batch_of(fam, [SHORT, LONG, SHORT, SHORT])
    of_short = rows != 1
    [group] = in_groups(inputs, rows[of_short], positions[of_short])
    assert len(group.inputs["input_ids"]) == 3
    assert group.asked.tolist() == list(range(int(of_short.sum())))


def test_where_little_is_saved_a_model_is_called_once():
    fam = family("t5")
    _, inputs, rows, positions, _ = batch_of(fam, [SHORT, "The women drank.", SHORT, LONG])
    assert len(in_groups(inputs, rows, positions)) == 2
    _, inputs, rows, positions, _ = batch_of(fam, [SHORT, LONG, LONG, LONG, LONG])
    [group] = in_groups(inputs, rows, positions)
    assert group.inputs is inputs


def test_padding_that_counts_stays():
    fam = family("t5")
    data = dataset(fam, examples([SHORT, SHORT, SHORT, LONG]), ignore_padding=False)
    [batch] = data.batches(4)
    rows, positions = TASKS["seq2seq"].predictions(batch.inputs["labels"])
    inputs = data.task.without_labels(fam.model, batch.inputs)
    layer, calls = OutputLayer(fam.model, may_pack=False), []
    fam.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        layer.check(inputs, rows, positions)
        calls.clear()
        found = layer.logits(inputs, rows, positions)
        assert len(calls) == 1
        expected = fam.model(**inputs).logits[rows, positions]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_model_to_which_padding_matters_keeps_all_of_it():
    """FNet mixes all positions of a sentence, padding among them."""
    fam = family("bert")
    config = transformers.FNetConfig(
        **{key: getattr(fam.model.config, key) for key in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "max_position_embeddings", "pad_token_id")},
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.FNetForMaskedLM(config).eval()

    forward = model.forward  # takes no mask, with which all models are called here
    model.forward = lambda attention_mask=None, **inputs: forward(**inputs)
    batch, inputs, rows, positions, targets = batch_of(fam._replace(model=model), [SHORT] * 3)
    layer = OutputLayer(model)
    layer.check(inputs, rows, positions)
    assert layer.selects
    assert not layer.resumes_alone
    batch, inputs, rows, positions, targets = batch_of(
        fam._replace(model=model), [SHORT, SHORT, SHORT, LONG]
    )
    assert len(in_groups(inputs, rows, positions)) == 2
    loss = layer.judged(CrossEntropy(targets), inputs, rows, positions)[0]
    torch.testing.assert_close(loss, model(**batch.inputs).loss)
