from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from finetune_lm.scoring.fast.embedding_rows import handed_on


class Scaled(torch.nn.Embedding):
    """As BART has it."""

    def forward(self, input):
        return super().forward(input) * 3


def gradient_of(embeddings, ids, weight_of_layer, weight):
    """Of something that depends on what is looked up, twice, and on the layer."""
    hidden = sum(each(part) for each, part in zip(embeddings, ids, strict=True)).tanh()
    return lambda: torch.autograd.grad((hidden @ weight_of_layer().T).cos().sum(), [weight])[0]


@pytest.mark.parametrize("padding", [None, 2])
def test_the_gradient_is_that_of_lookups_and_layer(padding):
    torch.manual_seed(1)
    embeddings = [Scaled(11, 5, padding), torch.nn.Embedding(11, 5, padding_idx=padding)]
    weight = embeddings[0].weight
    embeddings[1].weight = weight
    # A token that occurs twice, and one that is padding.
    ids = [torch.tensor([[1, 4, 4], [2, 0, 10]]), torch.tensor([[4, 2, 3], [9, 9, 9]])]
    expected = gradient_of(embeddings, ids, lambda: weight, weight)()
    usual = functional.embedding
    with handed_on(weight) as handed:
        found = gradient_of(embeddings, ids, lambda: handed[0], weight)
    assert functional.embedding is usual
    assert handed[0] is not weight
    torch.testing.assert_close(found(), expected)


def test_what_the_layer_has_no_part_in_has_its_gradient_all_the_same():
    torch.manual_seed(1)
    embedding = torch.nn.Embedding(6, 3)
    ids = torch.tensor([5, 5, 1])
    expected = torch.autograd.grad(embedding(ids).sin().sum(), [embedding.weight])
    with handed_on(embedding.weight):
        found = torch.autograd.grad(embedding(ids).sin().sum(), [embedding.weight])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"padding_idx": -3},
        {"padding_idx": None, "max_norm": 0.4},
        {"padding_idx": None, "max_norm": 0.4, "norm_type": 1.0},
        {"padding_idx": 3, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": True},
        {
            **{"padding_idx": None, "max_norm": None, "norm_type": 2.0},
            **{"scale_grad_by_freq": False, "sparse": True},
        },
    ],
)
def test_any_argument_of_torch_has_its_effect(settings, by_name):
    ids = torch.tensor([5, 3, 5, 1])
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(6, 3))

    def found(mine):
        if by_name:
            rows = functional.embedding(input=ids, weight=mine, **settings)
        else:
            rows = functional.embedding(ids, mine, *settings.values())
        rows.sin().sum().backward()
        return rows, mine.grad.to_dense()

    expected = found(torch.nn.Parameter(weight.detach().clone()))
    with handed_on(weight):
        torch.testing.assert_close(found(weight), expected)


def test_other_weights_and_lookups_without_gradients_are_left_alone():
    mine, other = torch.nn.Embedding(6, 3), torch.nn.Embedding(6, 3)
    ids = torch.tensor([0, 1])
    with handed_on(mine.weight) as handed:
        other(ids).sum().backward()
        with torch.no_grad():
            mine(ids)
        assert handed[0] is mine.weight
    assert other.weight.grad is not None
    mine.weight.requires_grad_(False)
    with handed_on(mine.weight) as handed:
        assert not mine(ids).requires_grad
        assert handed[0] is mine.weight
