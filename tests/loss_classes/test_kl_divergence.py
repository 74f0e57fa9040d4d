from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from finetune_lm.loss_classes._kl_divergence import KLDivergence, kl_divergence
from finetune_lm.scoring.fast.criterion import of_linear, of_logits

P = [[0.1, 0.2, 0.3, 0.25, 0.15], [0.9, 0.025, 0.025, 0.025, 0.025]]
Q = [[0.3, 0.1, 0.1, 0.25, 0.25], [0.2, 0.2, 0.2, 0.2, 0.2]]


def by_hand(p_rows, q_rows):
    return [
        sum(p * (math.log(p) - math.log(q)) for p, q in zip(p_row, q_row, strict=True))
        for p_row, q_row in zip(p_rows, q_rows, strict=True)
    ]


def test_it_is_that_of_the_baseline_from_the_model_over_five_tokens():
    p, q = torch.tensor(P).log(), torch.tensor(Q).log()
    torch.testing.assert_close(kl_divergence(q, p), torch.tensor(by_hand(P, Q)))
    torch.testing.assert_close(kl_divergence(p, q), torch.tensor(by_hand(Q, P)))
    assert abs(by_hand(P, Q)[1] - by_hand(Q, P)[1]) > 0.1  # the direction shows


def test_logits_need_not_be_normalised():
    p, q = torch.tensor(P).log() + 3.0, torch.tensor(Q).log() - 7.0
    torch.testing.assert_close(kl_divergence(q, p), torch.tensor(by_hand(P, Q)))


def test_a_token_that_the_baseline_rules_out_adds_nothing():
    p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    q = torch.tensor([[0.25, 0.25, 0.5]]).log().requires_grad_()
    divergence = kl_divergence(q, p)
    torch.testing.assert_close(divergence, torch.tensor([math.log(2)]))
    divergence.sum().backward()
    torch.testing.assert_close(q.grad, torch.tensor([[-0.25, -0.25, 0.5]]))


def test_its_gradient_is_that_of_the_formula():
    torch.manual_seed(0)
    q = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    p = torch.randn(7, 11, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: kl_divergence(logits, p), (q,))


def test_many_rows_are_as_one_by_one():
    """More than are looked at together."""
    torch.manual_seed(0)
    q, p = torch.randn(50, 30_000), torch.randn(50, 30_000)
    expected = torch.cat([kl_divergence(q[i : i + 1], p[i : i + 1]) for i in range(50)])
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_half_precision_logits_are_computed_with_in_float32():
    q = torch.tensor(Q).log().bfloat16().requires_grad_()
    p = torch.tensor(P).log()
    divergence = kl_divergence(q, p)
    assert divergence.dtype == torch.float32
    expected = kl_divergence(q.detach().float(), p)
    torch.testing.assert_close(divergence, expected, rtol=0, atol=0)
    divergence.sum().backward()
    assert q.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("per_entry", [False, True])
@pytest.mark.parametrize("left_out", [[], [0, 6, 12]])
def test_a_weighted_sum_over_what_both_vocabularies_have(left_out, per_entry):
    """The model has two entries that the baseline has not, and some more do not count."""
    torch.manual_seed(0)
    hidden = torch.randn(9, 4, requires_grad=True)
    layer = torch.randn(13, 4, requires_grad=True)
    p, weights = torch.randn(9, 11), torch.rand(9)
    kept = [i for i in range(11) if i not in left_out]
    q = hidden @ layer.T
    expected = (kl_divergence(q[:, kept], p[:, kept]) * weights).sum()
    if per_entry:
        expected = expected / len(kept)

    def criterion():
        return KLDivergence(lambda r: nullcontext(p[r]), weights, left_out, per_entry=per_entry)

    right = torch.autograd.grad(expected, [hidden, layer])
    for [found] in (of_logits(hidden @ layer.T, criterion()),
                    of_linear(hidden, layer, None, criterion())):  # fmt: skip
        torch.testing.assert_close(found, expected)
        for a, b in zip(torch.autograd.grad(found, [hidden, layer]), right, strict=True):
            torch.testing.assert_close(a, b)


def test_equal_predictions_do_not_diverge_at_all():
    torch.manual_seed(0)
    logits = torch.randn(200, 5_003) * 5
    divergence = kl_divergence(logits + 0.37, logits)
    assert (divergence >= 0).all()
    assert divergence.max() < 1e-6


@pytest.mark.parametrize("n", [2, 5_003, 60_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [0.0, 0.37, "rounding"])
def test_equal_predictions_have_no_gradient_at_all(n, dtype, shift):
    """Adam makes a step of full size of a gradient that is nothing but rounding."""
    torch.manual_seed(0)
    logits = torch.randn(20, n, dtype=dtype) * 5
    if shift == "rounding":
        shift = torch.randn(20, n, dtype=dtype) * (1e-6 if dtype == torch.float32 else 0.0)
    elif dtype == torch.float64:
        shift = 0.0
    q = (logits + shift).requires_grad_()
    kl_divergence(q, logits).sum().backward()
    assert not q.grad.any()
    criterion = KLDivergence(lambda r: nullcontext(logits[r]), torch.full((20,), 3.0, dtype=dtype))
    [total] = of_logits(q, criterion)
    assert not torch.autograd.grad(total, q)[0].any()


def test_what_differs_by_little_has_its_gradient():
    p = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    q = (p + torch.tensor([[1e-4, 0.0], [0.0, 0.0]])).requires_grad_()
    kl_divergence(q, p).sum().backward()
    expected = torch.tensor([[2.5e-5, -2.5e-5], [0.0, 0.0]])
    torch.testing.assert_close(q.grad, expected, rtol=1e-2, atol=0)
