from __future__ import annotations

import operator
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finetune_lm import DataTrainingArguments, ranks
from finetune_lm.constants import OWN_SHARE
from finetune_lm.errors import UserError
from finetune_lm.evaluation.losses import FoundLosses, LossEntry, Losses
from finetune_lm.evaluation.passes import EpochLosses
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.randomness import own_generator
from finetune_lm.ranks import World

OUTPUTS = SimpleNamespace(loss=torch.tensor(2.0), logits=torch.zeros(1, 2, 3))
LABELS = torch.tensor([[1, 2]])


class Constant:
    def __init__(self, model, tokenizer, value=1.0):
        self.value = value

    def __call__(self, outputs, labels):
        return torch.tensor(self.value)


class OnlyForward:
    def __init__(self, model, tokenizer):
        pass

    def forward(self, outputs, labels):
        return outputs.loss * 10


class Module(torch.nn.Module):
    def __init__(self, model, tokenizer):
        super().__init__()

    def forward(self, outputs, labels):
        return outputs.loss + 1


class Vector:
    def __init__(self, model, tokenizer):
        pass

    def __call__(self, outputs, labels):
        return torch.zeros(3)


class Entropy(OutputsDefaultLoss):
    """Calls the loss that it inherits from, and looks at logits besides."""

    def __call__(self, outputs, labels):
        return super().__call__(outputs, labels) + outputs.logits.sum()


class Renamed(OutputsDefaultLoss):
    """Does what the loss does that it inherits from."""


def losses(*classes, reduce=torch.sum, **kwargs):
    entries = [LossEntry(cls, kwargs.get(cls.__name__, {})) for cls in classes]
    return Losses(entries, reduce, model=None, tokenizer=None)


def test_the_default_loss_is_the_models_own():
    values = losses(OutputsDefaultLoss)(OUTPUTS, LABELS)
    assert values.numbers() == {"loss": 2.0, "OutputsDefaultLoss": 2.0}


def test_the_default_loss_is_0_where_no_label_counts():
    outputs = SimpleNamespace(loss=torch.tensor(torch.nan), logits=torch.zeros(1, 2, 3))
    assert losses(OutputsDefaultLoss)(outputs, torch.full((1, 2), -100)).total == 0.0


def test_kinds_of_classes():
    values = losses(OutputsDefaultLoss, OnlyForward, Module)(OUTPUTS, LABELS).numbers()
    expected = {"loss": 25.0, "OutputsDefaultLoss": 2.0, "OnlyForward": 20.0, "Module": 3.0}
    assert values == expected


def test_kwargs_and_numbering():
    values = losses(Constant, Constant, Constant=({"value": 4.0}))(OUTPUTS, LABELS).numbers()
    assert values == {"loss": 8.0, "Constant_1": 4.0, "Constant_2": 4.0}


def weigh(first, second):
    return first + 0.5 * second


def weigh_with(first, second, /, weight=0.5, *, bias=0.0):
    return first + weight * second + bias


def power(losses, power=1.0):
    return (losses**power).sum()


def add_up(*parts):
    return sum(parts)


def add_scaled(*parts, scale=2.0):
    return scale * sum(parts)


def first_of(first, *rest):
    return first


class Sum(torch.nn.Module):
    def forward(self, losses, scale=1.0):
        return losses.sum() * scale


class Weighted:
    def __call__(self, first, second, weight=0.5):
        return first + weight * second


REDUCTIONS = {
    torch.sum: 22.0, torch.mean: 11.0, torch.max: 20.0, sum: 22.0, max: 20.0, min: 2.0,
    weigh: 12.0, weigh_with: 12.0, power: 22.0, add_up: 22.0, add_scaled: 44.0, first_of: 2.0,
    torch.norm: 404**0.5, operator.add: 22.0, Sum(): 22.0, Weighted(): 12.0,
    partial(power, power=2.0): 404.0,
    (lambda losses: losses[0] - losses[1]): -18.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "reduce",
    REDUCTIONS,
    ids=lambda function: getattr(function, "__name__", type(function).__name__),
)
def test_reductions_are_given_losses_by_their_parameters_without_defaults(reduce):
    values = losses(OutputsDefaultLoss, OnlyForward, reduce=reduce)(OUTPUTS, LABELS)
    assert values.total.item() == pytest.approx(REDUCTIONS[reduce])


@pytest.mark.parametrize(
    "reduce",
    [torch.sum, sum, power, add_up, first_of, Sum()],
    ids=lambda function: getattr(function, "__name__", type(function).__name__),
)
def test_one_loss_is_put_together_likewise(reduce):
    assert losses(OutputsDefaultLoss, reduce=reduce)(OUTPUTS, LABELS).total.item() == 2.0


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (lambda: None, "these are: nothing"),
        (lambda a=1, b=2: a, "these are: nothing"),
        (lambda a, b, c: a, "these are: a, b, c"),
        (lambda a, b, c, *rest: a, "these are: a, b, c"),
        (lambda losses, *, weight: losses, "these are: losses, weight"),
        (lambda *losses, weight: losses, "these are: weight"),
        (torch.neg, "must return a tensor of one value for 2 losses but returned"),
        (torch.add, "must take a tensor of all losses"),
        (torch.logsumexp, "must take a tensor of all losses"),
    ],
)
def test_a_reduction_that_cannot_be_given_two_losses(reduce, message):
    for give in (
        partial(losses, OutputsDefaultLoss, OnlyForward, reduce=reduce),
        lambda: one_problem(reduce),
    ):
        with pytest.raises(UserError, match=message):
            give()


def one_problem(reduce):
    """What the arguments say of it, before anything is loaded."""
    args = DataTrainingArguments(
        train_file="a.txt",
        validation_file="a.txt",
        loss_classes={"validation": [OutputsDefaultLoss, OnlyForward]},
        loss_reduction_fns={"validation": reduce},
    )
    [problem] = args.problems()
    assert problem.startswith("loss_reduction_fns.validation: ")
    raise UserError(problem)


def test_the_graph_goes_through_the_reduction():
    loss = torch.tensor(3.0, requires_grad=True)
    outputs = SimpleNamespace(loss=loss, logits=torch.zeros(1))
    losses(OutputsDefaultLoss, OnlyForward)(outputs, LABELS).total.backward()
    assert loss.grad.item() == 11.0


def test_a_loss_of_several_values():
    with pytest.raises(UserError, match=r"Vector must return a tensor of one value .* \(3,\)"):
        losses(Vector)(OUTPUTS, LABELS)


def test_a_reduction_to_several_values():
    with pytest.raises(UserError, match="a loss reduction must return a tensor of one value"):
        losses(OutputsDefaultLoss, OnlyForward, reduce=lambda both: both)(OUTPUTS, LABELS)


def test_kwargs_that_a_class_does_not_take():
    with pytest.raises(UserError, match="Constant must accept model, tokenizer and what"):
        losses(Constant, Constant={"scale": 2})


def test_an_epoch_weighs_batches_by_their_labels():
    epoch = EpochLosses()
    epoch.add({"loss": 1.0}, n_labels=30)
    epoch.add({"loss": 5.0}, n_labels=10)
    epoch.add({"loss": 99.0}, n_labels=0)
    assert epoch.means("x") == {"loss": 2.0}


def test_an_epoch_weighs_a_loss_by_what_it_says():
    """And what is minimised by what the reduction makes of the means."""
    epoch = EpochLosses()
    epoch.add({"loss": 3.0, "CE": 1.0, "KL": 2.0}, n_labels=30, weights={"KL": 20})
    epoch.add({"loss": 13.0, "CE": 5.0, "KL": 8.0}, n_labels=10, weights={"KL": 20})
    epoch.add({"loss": 0.5, "CE": 0.5, "KL": 0.0}, n_labels=40, weights={"KL": 0})
    means = epoch.means("x", reduced=lambda means: means["CE"] + means["KL"])
    assert means == {"loss": 6.25, "CE": 1.25, "KL": 5.0}
    taken_up = EpochLosses()
    taken_up.load_state_dict(epoch.state_dict())
    assert taken_up.means("x", reduced=lambda means: 7.0) == {**means, "loss": 7.0}


def test_an_epoch_in_which_a_loss_counts_by_nothing():
    epoch = EpochLosses()
    epoch.add({"loss": 1.0, "CE": 1.0, "KL": 0.0}, n_labels=3, weights={"KL": 0})
    assert epoch.means("x", reduced=lambda means: means["CE"] + means["KL"])["loss"] == 1.0


class Weighing(Constant):
    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self.n_rewound = 0

    def __call__(self, outputs, labels):
        self.epoch_weight = 7
        return super().__call__(outputs, labels)

    def rewind(self):
        self.n_rewound += 1


def test_what_losses_may_say_beside_their_value():
    made = losses(OutputsDefaultLoss, Module, Weighing)
    made(OUTPUTS, LABELS)
    assert made.epoch_weights() == {"Weighing": 7.0}
    made.rewind()
    assert made.by_name()["Weighing"].n_rewound == 1


@pytest.mark.parametrize("reduce", [torch.sum, sum, add_up, lambda a, b: a + b])
def test_means_are_put_together_as_losses_are(reduce):
    made = losses(OutputsDefaultLoss, OnlyForward, reduce=reduce)
    assert made.reduced({"loss": 99.0, "OutputsDefaultLoss": 1.5, "OnlyForward": 2.0}) == 3.5


class Drawing:
    """Keeps what it draws from a stream of its own."""

    def __init__(self, model, tokenizer):
        self.drawn = torch.rand(3, generator=own_generator())

    def __call__(self, outputs, labels):
        return self.drawn.sum()


def test_each_loss_has_a_stream_of_its_own_and_touches_no_other():
    before = torch.get_rng_state()
    entries = [LossEntry(Drawing, seed=seed) for seed in (1, 2)]
    made = Losses(entries, torch.sum, model=None, tokenizer=None)
    for loss, seed in zip(made.by_name().values(), (1, 2), strict=True):
        expected = torch.rand(3, generator=torch.Generator().manual_seed(seed))
        assert loss.drawn.equal(expected)
    assert torch.get_rng_state().equal(before)
    # Outside of a run there is the seed that torch was given.
    torch.manual_seed(5)
    alone = Drawing(None, None).drawn
    assert alone.equal(torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_an_epoch_without_labels():
    epoch = EpochLosses()
    epoch.add({"loss": 0.0}, n_labels=0)
    with pytest.raises(UserError, match="data has nothing to predict"):
        epoch.means("data")


def test_who_needs_logits_is_a_matter_of_ones_own_call():
    """A loss that says that it needs none does not say so of a class that inherits from it."""
    assert losses(Entropy).need_logits
    assert losses(Constant, OutputsDefaultLoss).need_logits
    assert not losses(OutputsDefaultLoss).need_logits
    assert not losses(Renamed).need_logits


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
