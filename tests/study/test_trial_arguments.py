from __future__ import annotations

import math

import pytest
import torch

from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.study.trial_arguments import value_at, with_values
from studies import ListLoss


def args(**kwargs):
    return DataTrainingArguments(train_file="a.txt", validation_file="b.txt", seed=3, **kwargs)


def test_only_what_is_set_changes():
    before = args(
        train_optimizer_kwargs={"lr": 1e-3, "weight_decay": DELETE_FIELD, "eps": 1e-7},
        patience=4,
    )
    after = with_values(before, {("train_optimizer_kwargs", "lr"): 5e-3, ("epochs",): 7})
    assert (after.lr, after.epochs, after.patience, after.seed) == (5e-3, 7, 4, 3)
    # A default that was taken away does not come back.
    assert after.optimizer_kwargs() == {"lr": 5e-3, "eps": 1e-7}
    assert (before.lr, before.epochs) == (1e-3, 250)


def test_an_attribute_that_was_set_before_counts():
    before = args()
    before.lr = 0.5
    assert with_values(before, {("epochs",): 7}).lr == 0.5
    assert value_at(before, ("train_optimizer_kwargs", "lr")) == 0.5


def test_items_of_lists_and_keys_that_were_not_there():
    before = args(
        loss_classes={"train": [ListLoss]},
        loss_classes_kwargs={"train": {"ListLoss": {"scaleby": [1.0, 2.0]}}},
        train_optimizer_kwargs={"betas": (0.9, 0.99)},
    )
    place = ("loss_classes_kwargs", "train", "ListLoss")
    after = with_values(
        before,
        {
            (*place, "scaleby", 1): 9.0,
            (*place, "n"): 4,
            ("train_optimizer_kwargs", "betas", 0): 0.5,
            ("train_optimizer_kwargs", "amsgrad"): True,
        },
    )
    assert after.loss_kwargs("train", "ListLoss") == {"scaleby": [1.0, 9.0], "n": 4}
    assert after.train_ListLoss_n == 4
    assert after.optimizer_kwargs()["betas"] == [0.5, 0.99]
    assert after.amsgrad is True
    assert before.loss_kwargs("train", "ListLoss") == {"scaleby": [1.0, 2.0]}
    assert before.optimizer_kwargs()["betas"] == (0.9, 0.99)


def test_a_whole_dictionary_takes_the_place_of_another():
    before = args(train_optimizer_kwargs={"lr": 1e-3, "eps": 1e-7})
    after = with_values(before, {("train_optimizer_kwargs",): {"lr": 2e-3}})
    assert after.optimizer_kwargs() == {"lr": 2e-3}
    assert not hasattr(after, "eps")


def test_values_take_their_declared_form():
    after = with_values(args(), {("delta",): 1, ("loss_classes", "train"): ListLoss})
    assert type(after.delta) is float
    assert after.loss_classes["train"] == [ListLoss]
    with pytest.raises(UserError, match=r"epochs must be an integer but got 1.5"):
        with_values(args(), {("epochs",): 1.5})


def test_objects_that_cannot_be_copied():
    kwargs = {"train": {"ListLoss": {"dataset": math, "n": [torch.zeros(2)]}}}
    before = args(loss_classes={"train": [ListLoss]}, loss_classes_kwargs=kwargs)
    after = with_values(before, {("train_optimizer_kwargs", "lr"): 1.0})
    assert after.train_ListLoss_dataset is math
    assert after.train_ListLoss_n[0] is before.train_ListLoss_n[0]
