from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from families import family
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.fast import criterion, scratch
from finetune_lm.scoring.fast.criterion import of_linear, of_logits
from finetune_lm.scoring.fast.cross_entropy import CrossEntropy
from finetune_lm.scoring.fast.output_layer import OutputLayer
from helpers import assert_same_gradient, dataset

FAMILIES = ["gpt2", "llama", "pythia", "bert", "roberta", "albert", "t5", "bart"]


def layer_and_targets(k=37, vocabulary=301, width=16, with_bias=True):
    torch.manual_seed(0)
    hidden = torch.randn(k, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    bias = torch.randn(vocabulary, requires_grad=True) if with_bias else None
    return hidden, weight, bias, torch.randint(vocabulary, (k,))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 10, 37, 100])
def test_gradients_are_those_of_layer_and_loss_apart(with_bias, rows_at_once, monkeypatch):
    monkeypatch.setattr(criterion, "_LOGITS_AT_ONCE", rows_at_once * 301)
    # Of 37 and 10 rows, which are no multiples of 8, some are put behind.
    monkeypatch.setattr(criterion, "_ROWS_AS_THEY_ARE", 9)
    monkeypatch.setattr(criterion, "_COLUMNS_AT_ONCE", 100)
    hidden, weight, bias, targets = layer_and_targets(with_bias=with_bias)
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = cross_entropy(linear(*exact), targets)
    of_exact = torch.autograd.grad(expected * 3, exact)
    loss, nll, best_id, _ = of_linear(hidden, weight, bias, CrossEntropy(targets))
    torch.testing.assert_close(loss, expected.float())
    torch.testing.assert_close(nll.mean(), loss)
    assert torch.equal(best_id, linear(*leaves).argmax(-1))
    for found, right in zip(torch.autograd.grad(loss * 3, leaves), of_exact, strict=True):
        torch.testing.assert_close(found, right.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(frozen):
    *leaves, targets = layer_and_targets()
    leaves[frozen].requires_grad_(False)
    of_linear(*leaves, CrossEntropy(targets))[0].backward()
    assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(3)]


def test_no_gradients_are_computed_where_none_are_wanted():
    *leaves, targets = layer_and_targets()
    asked = []

    class Watched(CrossEntropy):
        def judge(self, rows, logits, gradient):
            asked.append(gradient is not None)
            super().judge(rows, logits, gradient)

    with torch.no_grad():
        loss = of_linear(*leaves, Watched(targets))[0]
        of_logits(linear(*leaves), Watched(targets))
    assert asked == [False, False]
    assert not loss.requires_grad
    exact = cross_entropy(linear(*leaves).double(), targets)
    torch.testing.assert_close(loss, exact.float())


def test_embeddings_that_somebody_changes_have_their_own_gradient():
    """What a hook makes of their outputs is part of the gradient."""
    fam = family("gpt2")
    fam.model.get_input_embeddings().register_forward_hook(lambda _, args, out: out * 2)
    [batch] = dataset(fam).batches(8)
    task = TASKS[fam.task]
    rows, positions = task.predictions(batch.inputs["labels"])
    criterion = CrossEntropy(batch.inputs["labels"][rows, positions + 1])
    layer = OutputLayer(fam.model)
    inputs = task.without_labels(fam.model, batch.inputs)
    weight = fam.model.get_input_embeddings().weight
    [fast] = torch.autograd.grad(layer.judged(criterion, inputs, rows, positions)[0], [weight])
    [plain] = torch.autograd.grad(fam.model(**batch.inputs).loss, [weight])
    assert_same_gradient(fast, plain)


def test_lent_memory_is_lent_to_nobody_else():
    scratch.release()
    like = torch.empty(0)
    with scratch.borrowed((4, 5), like) as first, scratch.borrowed((2, 3), like) as second:
        first.fill_(1.0)
        second.fill_(2.0)
        assert (first == 1.0).all()
        places = {first.data_ptr(), second.data_ptr()}
    with scratch.borrowed((2, 2), like) as again, scratch.borrowed((4, 5), like) as large:
        assert {again.data_ptr(), large.data_ptr()} == places
    with scratch.borrowed((2, 2), like.double()) as other:
        assert other.dtype == torch.float64


@pytest.mark.parametrize("n_columns", [1, 16, 50_257])
def test_rows_of_lent_memory_begin_at_lines_of_a_cache(n_columns):
    """Of 64 bytes each, so that products are written as fast as into a width that fits."""
    with scratch.borrowed((3, n_columns), torch.empty(0)) as lent:
        assert lent.shape == (3, n_columns)
        assert {row.data_ptr() % 64 for row in lent} == {0}


def test_a_loss_may_be_multiplied_by_what_was_expected_or_by_anything_else(monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    bias, targets = torch.randn(9, requires_grad=True), torch.randint(9, (5,))
    inputs, multiplied = (hidden, weight, bias), []
    usual = criterion._times

    def times(gradient, upstream):
        multiplied.append(upstream.item())
        return usual(gradient, upstream)

    monkeypatch.setattr(criterion, "_times", times)
    monkeypatch.setattr(criterion, "_LOGITS_AT_ONCE", 2 * 9)
    for expected, factor in ((5 / 7, 5 / 7), (5 / 7, 0.3), (1.0, 5 / 7)):
        with criterion.to_be_multiplied(expected):
            loss = of_linear(*inputs, CrossEntropy(targets))[0]
        plain = torch.nn.functional.cross_entropy(hidden @ weight.T + bias, targets)
        found, wanted = (torch.autograd.grad(each * factor, inputs) for each in (loss, plain))
        torch.testing.assert_close(found, wanted)
    assert multiplied[1] == 1.0  # nothing is left to be done with the gradient of the weights


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_a_model_are_those_of_its_own_loss(name):
    """Embeddings and last layer are one in most of them, and get one gradient."""
    fam = family(name)
    [batch] = dataset(fam).batches(8)
    task = TASKS[fam.task]
    rows, positions = task.predictions(batch.inputs["labels"])
    targets = batch.inputs["labels"][rows, positions + task.label_offset]
    inputs = task.without_labels(fam.model, batch.inputs)
    parameters = [p for p in fam.model.parameters() if p.requires_grad]

    def gradients(loss):
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    layer = OutputLayer(fam.model)
    # Two losses of one step, as with a term on other data: their gradients add up.
    found = sum(layer.judged(CrossEntropy(targets), inputs, rows, positions)[0] for _ in range(2))
    expected = 2 * fam.model(**batch.inputs).loss
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(found), gradients(expected), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_same_gradient(a, b)


def test_a_frozen_embedding_is_left_alone():
    fam = family("gpt2")
    fam.model.get_input_embeddings().weight.requires_grad_(False)
    [batch] = dataset(fam).batches(8)
    task = TASKS["lm"]
    rows, positions = task.predictions(batch.inputs["labels"])
    targets = batch.inputs["labels"][rows, positions + 1]
    inputs = task.without_labels(fam.model, batch.inputs)
    layer = OutputLayer(fam.model)
    layer.judged(CrossEntropy(targets), inputs, rows, positions)[0].backward()
    assert fam.model.get_input_embeddings().weight.grad is None
    assert fam.model.transformer.h[0].mlp.c_fc.weight.grad is not None


def test_the_activation_is_itself_again_afterwards():
    fam = family("gpt2")
    [batch] = dataset(fam).batches(8)
    rows, positions = TASKS["lm"].predictions(batch.inputs["labels"])
    inputs = TASKS["lm"].without_labels(fam.model, batch.inputs)
    OutputLayer(fam.model).logits(inputs, rows, positions)
    for block in fam.model.transformer.h:
        assert "forward" not in vars(block.mlp.act)
