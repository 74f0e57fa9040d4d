"""Several ranks put their losses together, and have about as much to do."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune_lm import ranks
from finetune_lm.constants import OWN_SHARE
from finetune_lm.evaluation.losses import FoundLosses
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.ranks import World
from helpers import losses


class _Rank(World):
    """One of two ranks, which are asked one after the other."""

    size = 2

    def __init__(self, rank):
        self.rank = rank


class Squares:
    """Something of each example, put together in a way that a class below it says."""

    def __init__(self, model, tokenizer):
        del model, tokenizer

    def __call__(self, outputs, labels):
        squares = outputs.weights**2
        return squares.sum() if self.reduce_over_ranks == "sum" else squares.mean()


class OfExamples(Squares):
    reduce_over_ranks = "examples"


class AddedUp(Squares):
    reduce_over_ranks = "sum"


class OfItsOwn(Squares):
    def __call__(self, outputs, labels):
        counts = torch.arange(1.0, len(outputs.weights) + 1)
        return (outputs.weights**2 * counts).sum() / counts.sum()

    def reduce_over_ranks(self, outputs, labels):
        n = len(outputs.weights)
        return n * (n + 1) / 2


@pytest.mark.parametrize(
    ("cls", "by_hand"),
    [
        # Weights 1, 2, 4; the first rank has 1 and 4, with 3 and 2 labels, the other 2, with 1.
        (OutputsDefaultLoss, ((1 * 3 + 16 * 2) + 4 * 1) / 6),
        (OfExamples, (1 + 16 + 4) / 3),
        (AddedUp, 1 + 16 + 4),
        (OfItsOwn, ((1 * 1 + 16 * 2) + 4 * 1) / 4),
    ],
)
def test_ranks_put_their_losses_together_as_each_says(monkeypatch, cls, by_hand):
    labels = torch.tensor([[7, 7, 7], [7, -100, -100], [7, 7, -100]])
    n_labels = torch.tensor([3.0, 1.0, 2.0])
    weights = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    found, values = [], []
    made = losses(cls)
    for rank in range(2):
        monkeypatch.setattr(ranks, "_joined", _Rank(rank))
        mine = weights[rank::2]
        by_label = (mine**2 * n_labels[rank::2]).sum() / n_labels[rank::2].sum()
        outputs = SimpleNamespace(loss=by_label, weights=mine)
        values.append(made(outputs, labels[rank::2], int(n_labels[rank::2].sum())))
        found.append(FoundLosses(values[-1].numbers(), values[-1].counts))
    together = made.joined(found)
    assert together.numbers == {
        "loss": pytest.approx(by_hand),
        cls.__name__: pytest.approx(by_hand),
    }
    # What each learns adds up to what one would.
    sum(each.of_share(together.counts) for each in values).backward()
    added, weights.grad = weights.grad, None
    if cls is OutputsDefaultLoss:
        whole = (weights**2 * n_labels).sum() / n_labels.sum()
    elif cls is OfItsOwn:
        whole = (weights**2 * torch.tensor([1.0, 1.0, 2.0])).sum() / 4
    else:
        whole = (weights**2).sum() / (3 if cls is OfExamples else 1)
    whole.backward()
    torch.testing.assert_close(added, weights.grad)


@pytest.mark.parametrize("cls", [OutputsDefaultLoss, OfExamples, AddedUp, OfItsOwn])
def test_a_rank_without_a_share_adds_nothing(monkeypatch, cls):
    monkeypatch.setattr(ranks, "_joined", _Rank(1))
    made = losses(cls)
    none = made(None, torch.zeros(0, 3, dtype=torch.long), 0)
    assert (none.numbers()["loss"], none.counts) == (0.0, {cls.__name__: 0})
    weights = torch.tensor([3.0], requires_grad=True)
    all_ = made(
        SimpleNamespace(loss=weights.mean() ** 2, weights=weights), torch.tensor([[7, 7]]), 2
    )
    found = [FoundLosses(each.numbers(), each.counts) for each in (all_, none)]
    together = made.joined(found)
    assert together.numbers["loss"] == 9.0
    assert none.of_share(together.counts) is None
    assert all_.of_share(together.counts).requires_grad


class OfOwnShare(Squares):
    reduce_over_ranks = OWN_SHARE
    epoch_weight = 2.0


def test_what_all_ranks_have_found_of_a_whole_batch_counts_once(monkeypatch):
    """And that of which each has its share counts together."""
    made = losses(AddedUp, OfExamples, OfOwnShare)
    monkeypatch.setattr(ranks, "_joined", _Rank(0))
    found = [
        FoundLosses({"loss": n, "AddedUp": 5.0, "OfExamples": 3.0, "OfOwnShare": n}, {}, weights)
        for n, weights in ((1.0, {"OfOwnShare": 2.0}), (4.0, {"OfOwnShare": 1.0}))
    ]
    together = made.joined(found, are_shares=False)
    expected = {"loss": 13.0, "AddedUp": 5.0, "OfExamples": 3.0, "OfOwnShare": 5.0}
    assert (together.numbers, together.weights) == (expected, {"OfOwnShare": 3.0})


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_have_as_many_and_about_as_much(size):
    world = World()
    world.size = size
    for n in (0, 1, 4, 31):
        costs = np.random.default_rng(n).integers(1, 200, n)
        dealt = world.dealt(costs)
        n_of_each = np.bincount(dealt, minlength=size)
        cost_of_each = np.bincount(dealt, weights=costs, minlength=size)
        assert (len(dealt), len(n_of_each)) == (n, size)
        assert n_of_each.max() - n_of_each.min() <= 1
        assert cost_of_each.max() - cost_of_each.min() <= costs.max(initial=0)
    # By turns of 9 and 8, 3 and 2, 2 and 1, 1 and 0: the larger goes to whoever has less by then.
    world.size = 2
    assert world.dealt(np.array([2, 9, 3, 8, 1, 2, 0, 1])).tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
