from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import cross_entropy

from finetune_lm.scoring.fast.criterion import of_logits
from finetune_lm.scoring.fast.cross_entropy import (
    CrossEntropy,
    Targets,
    TargetScores,
    score_rows,
)


def score_targets(logits, targets):
    return TargetScores(*of_logits(logits, CrossEntropy(targets)))


def logits_and_targets(k=37, width=5_003, dtype=torch.float32):
    torch.manual_seed(0)
    return (torch.randn(k, width) * 3).to(dtype), torch.randint(width, (k,))


def test_uniform_logits_cost_log_of_the_vocabulary():
    scores = score_targets(torch.zeros(3, 8), torch.tensor([0, 3, 7]))
    assert scores.nll.tolist() == pytest.approx([math.log(8)] * 3)
    assert scores.best_nll.tolist() == pytest.approx([math.log(8)] * 3)
    assert scores.best_id.tolist() == [0, 0, 0]
    assert scores.loss.item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("width", [7, 5_003, 200_000])
def test_loss_and_gradient_are_those_of_torch(width):
    logits, targets = logits_and_targets(width=width)
    plain = logits.double().requires_grad_()
    expected = cross_entropy(plain, targets)
    (expected * 3).backward()
    leaf = logits.clone().requires_grad_()
    scores = score_targets(leaf + 0, targets)
    (scores.loss * 3).backward()
    torch.testing.assert_close(scores.loss, expected.float())
    torch.testing.assert_close(leaf.grad, plain.grad.float(), rtol=1e-5, atol=1e-9)
    # In float32 torch's own are up to 4e-5 off, in some processors.
    costs = -logits.double().log_softmax(-1)
    torch.testing.assert_close(scores.nll, costs[range(37), targets].float())
    assert torch.equal(scores.best_id, logits.argmax(-1))
    torch.testing.assert_close(scores.best_nll, costs.amin(-1).float())


def test_logits_stay_as_they_are():
    logits, targets = logits_and_targets()
    leaf = logits.clone().requires_grad_()
    score_targets(leaf, targets).loss.backward()
    assert torch.equal(leaf.detach(), logits)
    with torch.no_grad():
        score_targets(leaf, targets)
    assert torch.equal(leaf.detach(), logits)


def test_gradients_go_to_the_loss_only():
    leaf = torch.zeros(2, 3, requires_grad=True)
    scores = score_targets(leaf, torch.tensor([0, 1]))
    assert scores.loss.requires_grad
    assert not scores.nll.requires_grad
    assert not scores.best_nll.requires_grad


def test_very_large_and_infinite_logits():
    logits = torch.tensor([[1e4, 0.0, -torch.inf], [-1e4, -1e4, -1e4]])
    scores = score_targets(logits, torch.tensor([1, 2]))
    assert scores.nll.tolist() == pytest.approx([1e4, math.log(3)])


def test_half_precision_logits_are_computed_with_in_float32():
    logits, targets = logits_and_targets(dtype=torch.bfloat16)
    leaf = logits.clone().requires_grad_()
    scores = score_targets(leaf, targets)
    scores.loss.backward()
    expected = -logits.double().log_softmax(-1)[range(37), targets]
    torch.testing.assert_close(scores.nll, expected.float())
    assert leaf.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(("n", "width"), [(1, 5), (300, 11), (70, 300_000)])
def test_rows_that_predict_several_targets(n, width):
    torch.manual_seed(0)
    hidden, weight = torch.randn(n, 4), torch.randn(4, width)
    which, targets = torch.randint(n, (2 * n,)), torch.randint(width, (2 * n,))
    asked = Targets(targets, which)
    found = score_rows(lambda h: nullcontext(h @ weight), hidden, asked, width)
    logits = hidden @ weight
    exact = logits.double()
    costs = exact.logsumexp(-1)[which] - exact[which, targets]
    torch.testing.assert_close(found.nll, costs.float())
    best = exact.logsumexp(-1) - exact.amax(-1)
    torch.testing.assert_close(found.best_nll, best[which].float())
    assert torch.equal(found.best_id, logits.argmax(-1)[which])
    torch.testing.assert_close(found.loss, costs.mean().float())
