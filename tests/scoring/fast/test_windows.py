"""Models some of whose layers attend over a window: as others where the texts fit it."""

from __future__ import annotations

import pytest
import torch

from families import CAUSAL_TASKS, CONFIGS, MORE_TASKS, TASKS, WINDOW_TASKS, family
from finetune_lm import messages
from finetune_lm.models import tasks
from finetune_lm.scoring.fast import ragged_kinds
from finetune_lm.scoring.fast.ragged import lay_out
from finetune_lm.scoring.fast.ragged_attention import Rows, UnsupportedAttentionError, laid_out
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import assert_same_gradient, assert_same_logits, dataset, examples

CPU = torch.device("cpu")
TEXTS = [
    "The man has always broken the glass.",
    "The man has always broken the box.",
    "The man drank.",
    "The man has always broken the glass of cold water, haven't they?",
    "She drank a glass of cold water.",
]


def brute_force(fam, data):
    """What each token of each text costs in bits, each text alone, by the plain model."""
    costs = []
    for batch in data.batches(1):
        labels = batch.inputs["labels"][0]
        logits = fam.model(input_ids=batch.inputs["input_ids"]).logits[0].double()
        found = -logits.log_softmax(-1)[:-1].gather(1, labels[1:, None])[:, 0]
        costs.append(found / torch.log(torch.tensor(2.0)))
    return torch.cat(costs)


def scored(fam, data, size=2):
    forward = Forward(Scorer(fam.model, data.task, fast=True), data, size, needs=Needs(False))
    costs = []
    for batch in data.batches(size):
        score = forward(batch, CPU, alone=False).score
        labels = batch.inputs["labels"]
        rows, positions = data.task.predictions(labels)
        costs.append(
            torch.as_tensor(score(rows, positions, labels[rows, positions + 1])().surprisal)
        )
    return forward, torch.cat(costs)


@pytest.mark.parametrize("name", WINDOW_TASKS)
def test_texts_that_fit_the_window_share_beginnings_and_others_keep_their_padding(
    name, monkeypatch, capsys
):
    for window, fits in ((32, True), (6, False)):
        monkeypatch.setattr(messages, "_said", set())
        fam = family(name, window=window)
        data = dataset(fam, examples(TEXTS))
        assert 6 < data.longest <= 32
        with torch.no_grad():
            forward, found = scored(fam, data)
            torch.testing.assert_close(found.double(), brute_force(fam, data), rtol=0, atol=1e-4)
        assert forward._is_fast
        assert forward._together is not None
        assert forward._layer.has_beginnings == fits
        why = f"fast: padding stays, since a text has {data.longest} tokens, and this model's"
        assert (why in capsys.readouterr().err) == (not fits)


@pytest.mark.parametrize("name", CAUSAL_TASKS)
def test_models_without_a_window_share_beginnings_whatever_else_they_do(name):
    fam = family(name)
    data = dataset(fam, examples(TEXTS))
    with torch.no_grad():
        forward, found = scored(fam, data)
        torch.testing.assert_close(found.double(), brute_force(fam, data), rtol=0, atol=1e-4)
    assert forward._is_fast
    assert forward._together is not None
    assert forward._layer.has_beginnings


def test_all_causal_kinds_that_go_without_padding_are_tried():
    names = [*TASKS, *MORE_TASKS, *WINDOW_TASKS, *CAUSAL_TASKS]
    assert {CONFIGS[name](99).model_type for name in names} >= ragged_kinds.CAUSAL_TYPES


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "mistral", "olmo3", "olmoe"])
def test_gradients_are_those_of_the_plain_way(name):
    fam = family(name)
    data = dataset(fam, examples(TEXTS))
    [batch] = data.batches(len(TEXTS))
    forward = Forward(Scorer(fam.model, data.task, fast=True), data, 5, needs=Needs(False))
    parameters = list(fam.model.parameters())
    losses = forward(batch, CPU).for_losses.loss, fam.model(**batch.inputs).loss
    assert forward._layer.is_ragged
    torch.testing.assert_close(*losses)
    for found, expected in zip(
        *(torch.autograd.grad(loss, parameters) for loss in losses), strict=True
    ):
        assert_same_gradient(found, expected)


def test_one_text_that_does_not_fit_is_seen_whatever_comes_first(monkeypatch):
    """The rule is one of the data set, since its first texts may all be short."""
    monkeypatch.setattr(messages, "_said", set())
    fam = family("mistral", window=8)
    data = dataset(fam, examples([*["The man drank."] * 4, *TEXTS]))
    with torch.no_grad():
        forward, found = scored(fam, data)
        torch.testing.assert_close(found.double(), brute_force(fam, data), rtol=0, atol=1e-4)
    assert not forward._layer.is_ragged


def test_a_batch_that_does_not_fit_goes_in_padded_whoever_asks():
    """Who does not know how long texts will be, as where they are made anew for each batch."""
    fam = family("mistral", window=8)
    data, task = dataset(fam, examples(["The man drank.", "The drank.", *TEXTS])), tasks.TASKS["lm"]
    layer = Scorer(fam.model, task, fast=True).layer()
    with torch.no_grad():
        for batch in data.batches(2):
            rows, positions = task.predictions(batch.inputs["labels"])
            inputs = task.without_labels(fam.model, batch.inputs)
            found = layer.logits(inputs, rows, positions)
            assert layer.is_ragged
            assert_same_logits(found, fam.model(**inputs).logits[rows, positions])
        [whole] = data.batches(len(data))
        rows, positions = task.predictions(whole.inputs["labels"])
        inputs = task.without_labels(fam.model, whole.inputs)
        hidden, which = layer.of_beginnings(inputs, rows, positions)
        with layer.of_hidden(hidden) as logits:
            expected = fam.model(**inputs).logits[rows, positions]
            assert_same_logits(logits[which], expected)
        rows = Rows(lay_out(whole.inputs["attention_mask"]))
        with laid_out(fam.model, rows), pytest.raises(UnsupportedAttentionError, match="window"):
            fam.model(whole.inputs["input_ids"])


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_equal_beginnings_go_through_the_output_layer_once_where_padding_stays(name, monkeypatch):
    monkeypatch.setattr(ragged_kinds, "CAUSAL_TYPES", frozenset())
    fam = family(name)
    data = dataset(fam, examples(TEXTS))
    with torch.no_grad():
        forward, found = scored(fam, data)
        torch.testing.assert_close(found.double(), brute_force(fam, data), rtol=0, atol=1e-4)
        layer, fed = forward._layer, []
        assert layer.resumes_alone
        assert not layer.is_ragged
        usual = layer.of_hidden
        monkeypatch.setattr(layer, "of_hidden", lambda h: fed.append(len(h)) or usual(h))
        forward.forget()
        forward(next(data.batches(2)), CPU, alone=False)
    ids = [row[: i + 1] for row in data.input_ids.tolist() for i in range(len(row) - 1)]
    assert sum(fed) == len(set(map(tuple, ids))) < len(ids)
