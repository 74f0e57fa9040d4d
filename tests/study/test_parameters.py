"""Where the value of a parameter goes, and how it is stored."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.study.parameters import Parameter, stored, value_at, with_values
from studies import ListLoss


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        ("adam", "adam"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (torch.optim.SGD, "torch.optim.SGD"),
        (OutputsDefaultLoss, "loss_classes.OutputsDefaultLoss"),
        (torch.sum, "torch.sum"),
        (sum, "callable:sum"),
        (Path("a/b.txt"), "a/b.txt"),
        ([1, "3", OutputsDefaultLoss], '[1, "\\"3\\"", "loss_classes.OutputsDefaultLoss"]'),
        ({"lr": 1e-3, "f": torch.sum}, '{"lr": 0.001, "f": "torch.sum"}'),
    ],
)
def test_how_a_choice_is_stored(choice, expected):
    assert stored(choice) == expected
    assert type(stored(choice)) is type(expected)


@pytest.mark.parametrize("choice", [lambda: 0, object(), [lambda: 0], {"a": {"b": object()}}])
def test_what_could_not_be_found_again(choice):
    with pytest.raises(UserError, match="can be imported by its name"):
        stored(choice)


def storages(tmp_path):
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    yield lambda: JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    yield lambda: RDBStorage(f"sqlite:///{tmp_path}/study.db")


def test_classes_come_back_from_a_storage_that_lasts(tmp_path):
    choices = (torch.optim.SGD, torch.optim.AdamW, None, {"a": 1}, "torch.optim.SGD ")
    parameter = Parameter("x", ("train_optimizer",), "categorical", choices=choices)
    for number, open_storage in enumerate(storages(tmp_path)):
        study = optuna.create_study(storage=open_storage(), study_name=f"s{number}")
        tried = []
        study.optimize(lambda trial: tried.append(parameter.suggest(trial)) or 0.0, n_trials=30)  # noqa: B023
        again = optuna.load_study(storage=open_storage(), study_name=f"s{number}")
        assert [parameter.value_of(t.params["x"]) for t in again.trials] == tried
        assert {str(choice) for choice in tried} == {str(choice) for choice in choices}
        assert {t.params["x"] for t in again.trials} == {
            *("torch.optim.SGD", "torch.optim.AdamW", None, '{"a": 1}', "torch.optim.SGD "),
        }


def test_suggest_kwargs_are_passed_on():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    stepped = Parameter("a", ("a",), "float", (0.0, 1.0), suggest_kwargs={"step": 0.25})
    log = Parameter("b", ("b",), "float", (1e-8, 1.0), suggest_kwargs={"log": True})
    whole = Parameter("c", ("c",), "int", (1, 9), suggest_kwargs={"step": 4})
    trials = [study.ask() for _ in range(200)]
    assert {stepped.suggest(trial) for trial in trials} == {0.0, 0.25, 0.5, 0.75, 1.0}
    # Half of what is drawn on a logarithmic scale is below its middle.
    assert 70 < sum(log.suggest(trial) < 1e-4 for trial in trials) < 130
    assert {whole.suggest(trial) for trial in trials} == {1, 5, 9}
    assert all(type(trial.params["c"]) is int for trial in trials)


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
