"""Losses of a batch and of an epoch: their classes, reductions, weights and gradients."""

from __future__ import annotations

import operator
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from finetune_lm import DataTrainingArguments
from finetune_lm.errors import UserError
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.evaluation.passes import EpochLosses
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.randomness import own_generator
from helpers import losses

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
