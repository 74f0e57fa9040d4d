from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from finetune_lm.errors import UserError
from finetune_lm.evaluation.losses import EpochLosses, Losses
from finetune_lm.loss_classes import OutputsDefaultLoss

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
    given = [kwargs.get(cls.__name__, {}) for cls in classes]
    return Losses(classes, given, reduce, model=None, tokenizer=None)


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


def add_up(*parts):
    return sum(parts)


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [(torch.sum, 22.0), (torch.mean, 11.0), (torch.max, 20.0), (sum, 22.0), (max, 20.0),
     (weigh, 12.0), (add_up, 22.0), (lambda losses: losses[0] - losses[1], -18.0)],
)  # fmt: skip
def test_reductions(reduce, expected):
    values = losses(OutputsDefaultLoss, OnlyForward, reduce=reduce)(OUTPUTS, LABELS)
    assert values.total.item() == expected


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
        losses(OutputsDefaultLoss, OnlyForward, reduce=torch.neg)(OUTPUTS, LABELS)


def test_kwargs_that_a_class_does_not_take():
    with pytest.raises(UserError, match="Constant must accept model, tokenizer and what"):
        losses(Constant, Constant={"scale": 2})


def test_an_epoch_weighs_batches_by_their_labels():
    epoch = EpochLosses()
    epoch.add({"loss": 1.0}, n_labels=30)
    epoch.add({"loss": 5.0}, n_labels=10)
    epoch.add({"loss": 99.0}, n_labels=0)
    assert epoch.means("x") == {"loss": 2.0}


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
