"""Attention by products of matrices, against a sum for each query in float64."""

from __future__ import annotations

import pytest
import torch

from finetune_lm.scoring.fast import ragged_attention
from finetune_lm.scoring.fast.ragged_attention import Weighting, attend

N, HEADS, WIDTH = 2, 4, 3


def brute_force(query, key, value, seen, weighting):
    """One query after the other."""
    query, key, value = (states.double() for states in (query, key, value))
    found = torch.zeros(*query.shape[:3], value.shape[3], dtype=torch.float64)
    for n in range(query.shape[0]):
        for head in range(query.shape[1]):
            shared = head * key.shape[1] // query.shape[1]
            for i in range(query.shape[2]):
                scores = key[n, shared] @ query[n, head, i] * weighting.scaling
                if weighting.softcap is not None:
                    scores = weighting.softcap * torch.tanh(scores / weighting.softcap)
                if seen is None:
                    scores[i + 1 :] = -torch.inf
                else:
                    shape = (*query.shape[:3], key.shape[2])
                    of_query = seen.expand(shape)[n, head, i]
                    is_bool = of_query.dtype == torch.bool
                    scores = (
                        scores.masked_fill(~of_query, -torch.inf) if is_bool else scores + of_query
                    )
                found[n, head, i] = scores.softmax(0) @ value[n, shared]
    return found


@pytest.mark.parametrize("by_products", [True, False])
def test_it_is_what_a_sum_for_each_query_comes_to(by_products, monkeypatch):
    """All that is seen, all kinds of heads; by torch's own function where there is much of it."""
    if not by_products:
        monkeypatch.setattr(ragged_attention, "_MOST_SCORES", 0)
    torch.manual_seed(1)
    is_real = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)[:, None, None]
    bias = torch.randn(1, HEADS, 5, 4)
    for shared, seen, softcap in (
        *((shared, None, None) for shared in (HEADS, 2, 1)),
        *((shared, None, 0.5) for shared in (HEADS, 2)),
        (HEADS, is_real, None),
        (HEADS, bias.masked_fill(~is_real, torch.finfo(torch.float32).min), None),
    ):
        weighting = Weighting(0.7, softcap=softcap)
        of_keys = 5 if seen is None else 4
        # As they come: heads beside each other in memory.
        states = [
            torch.randn(N, length, heads, WIDTH).transpose(1, 2).requires_grad_()
            for length, heads in ((5, HEADS), (of_keys, shared), (of_keys, shared))
        ]
        found = attend(*states, seen, weighting)
        expected = brute_force(*states, seen, weighting)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
        upstream = torch.randn_like(found)
        gradients = torch.autograd.grad(found, states, upstream)
        exact = torch.autograd.grad(expected, states, upstream.double())
        torch.testing.assert_close(gradients, exact, rtol=1e-5, atol=1e-5)


def test_what_is_left_out_is_as_many_and_the_rest_weighs_more():
    torch.manual_seed(1)
    ones = torch.zeros(8, 1, 100, 1)
    found = attend(ones, ones, torch.ones_like(ones), None, Weighting(1.0, dropout=0.5))
    assert found.mean().sub(1.0).abs() < 0.05
    # The first token sees itself alone.
    assert set(found[:, 0, 0, 0].tolist()) <= {0.0, 2.0}


def test_half_precision_is_left_to_torch(monkeypatch):
    asked = []
    usual = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: asked.append(args[0].dtype) or usual(*args, **kwargs),
    )
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        states = torch.ones(1, 1, 3, 2, dtype=kind)
        attend(states, states, states, None, Weighting(1.0))
    assert asked == [torch.bfloat16]
