from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
import torch

from finetune_lm import UserError
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.study.parameters import Parameter, stored


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
