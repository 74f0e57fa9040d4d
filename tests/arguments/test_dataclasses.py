from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from finetune_lm.arguments import (
    DELETE_FIELD,
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    Reference,
)
from finetune_lm.errors import UserError

FILES: dict[str, Any] = {"train_file": "train.txt", "validation_file": "validation.txt"}


class KL: ...


class KL_Mean: ...  # noqa: N801


def add_words(model: Any, tokenizer: Any) -> None: ...


def data(**kwargs: Any) -> Any:
    return DataTrainingArguments(**{**FILES, **kwargs})


def test_python_and_the_command_line_mean_the_same() -> None:
    args = data(
        train_file=Path("a.txt"),
        test_file=[Path("b.txt"), "c.txt"],
        loss_classes={"train": KL},
        train_optimizer_kwargs={"lr": 1e-4, "weight_decay": DELETE_FIELD},
        delta=1,
    )
    assert args.train_file == "a.txt"
    assert args.test_file == ["b.txt", "c.txt"]
    assert args.loss_classes["train"] == [KL]
    assert len(args.loss_classes["validation"]) == 1
    assert args.train_optimizer_kwargs == {"lr": 1e-4}
    assert type(args.delta) is float


def test_defaults_are_objects_and_nobody_shares_them() -> None:
    import torch

    from finetune_lm.data_preprocessing import identity
    from finetune_lm.loss_classes import OutputsDefaultLoss

    one, other = data(), data()
    assert one.train_optimizer is torch.optim.AdamW
    assert one.loss_reduction_fns == {"train": torch.sum, "validation": torch.sum}
    assert one.loss_classes["train"] == [OutputsDefaultLoss]
    assert set(one.data_preprocessing_fn.values()) == {identity}
    one.loss_classes["train"].append(KL)
    one.train_optimizer_kwargs["lr"] = 3
    one.data_preprocessing_fn_kwargs["train"]["x"] = 1
    assert other.loss_classes["train"] == [OutputsDefaultLoss]
    assert data().train_optimizer_kwargs["lr"] == 2e-6
    assert data().data_preprocessing_fn_kwargs["train"] == {}


def test_the_seed_is_drawn_anew() -> None:
    random.seed(1)
    assert data().seed != data().seed


def test_what_the_instance_has_is_what_is_used() -> None:
    args = data(
        loss_classes={"train": [KL, KL_Mean]},
        loss_classes_kwargs={"train": {"KL": {"scaleby": 2.5}, "KL_Mean": {"x": 1}}},
    )
    assert (args.lr, args.weight_decay, args.train_KL_scaleby) == (2e-6, 0, 2.5)
    args.lr = 1.0
    args.train_KL_scaleby = 4
    args.train_KL_n_examples_per_batch = 7
    args.train_KL_Mean_y = 2
    assert args.optimizer_kwargs() == {"lr": 1.0, "weight_decay": 0}
    assert args.loss_kwargs("train", "KL") == {"scaleby": 4, "n_examples_per_batch": 7}
    assert args.loss_kwargs("train", "KL_Mean") == {"x": 1, "y": 2}
    assert args.loss_kwargs("validation", "KL") == {}
    effective = args.effective()
    assert effective["train_optimizer_kwargs"] == {"lr": 1.0, "weight_decay": 0}
    assert effective["loss_classes_kwargs"]["train"]["KL"]["scaleby"] == 4
    assert copy.deepcopy(args).optimizer_kwargs()["lr"] == 1.0


@pytest.mark.parametrize("name", ["seed", "problems", "train_file", "effective"])
def test_a_kwarg_cannot_take_the_place_of_an_argument(name: str) -> None:
    message = f"train_optimizer_kwargs.{name} cannot be set because {name} is the name of another"
    with pytest.raises(UserError, match=message):
        data(train_optimizer_kwargs={name: 1})


def test_two_kwargs_of_one_name_are_told() -> None:
    kwargs = {"train": {"KL": {"Mean_x": 1}, "KL_Mean": {"x": 1}}}
    with pytest.raises(UserError, match=r"loss_classes_kwargs\.train\.KL_Mean\.x cannot be set"):
        data(loss_classes_kwargs=kwargs)


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"epochs": 0}, "epochs must be at least 1 but got 0."),
        ({"epochs": 3, "min_epochs": 4}, "min_epochs cannot be larger than epochs (3) but got 4."),
        ({"min_epochs": -1}, "min_epochs cannot be negative but got -1."),
        ({"patience": -1}, "patience cannot be negative but got -1."),
        ({"delta": -0.5}, "delta cannot be negative but got -0.5."),
        ({"delta": float("nan")}, "delta must be at least 0 but got nan."),
        ({"max_length": 0}, "max_length must be at least 1 but got 0."),
        ({"max_train_samples": 0}, "max_train_samples must be at least 1 but got 0."),
        ({"max_validation_samples": 0}, "max_validation_samples must be at least 1 but got 0."),
        ({"max_test_samples": -2}, "max_test_samples must be at least 1 but got -2."),
        (
            {"per_device_train_batch_size": 0},
            "per_device_train_batch_size must be at least 1 but got 0.",
        ),
        (
            {"preprocessing_num_workers": 0},
            "preprocessing_num_workers must be at least 1 but got 0.",
        ),
        (
            {"train_file": None, "validation_file": None, "test_file": "a", "probe_file": "b"},
            "probe_file needs a train_file: probes are measured while a model learns. To "
            "only test a model, give test_file.",
        ),
        ({"max_probe_samples": 0}, "max_probe_samples must be at least 1 but got 0."),
        ({"probe_every": 0}, "probe_every must be at least 1 but got 0."),
        ({"probe_every_steps": 0}, "probe_every_steps must be at least 1 but got 0."),
        (
            {"probe_every": 2, "probe_every_steps": 3},
            "probe_every and probe_every_steps cannot both be given: probes are measured after "
            "epochs or after updates.",
        ),
        (
            {"select_by": "los"},
            "select_by must be loss, pair_accuracy or pair_difference but got 'los'. Did you mean "
            "loss?",
        ),
        ({"seed": -1}, "seed must be from 0 to 4294967295 but got -1."),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295 but got 4294967296."),
        ({"validation_file": None}, "validation_file must be given when train_file is."),
        ({"train_file": None}, "train_file must be given when validation_file is."),
        (
            {"train_file": None, "validation_file": None},
            "train_file and validation_file, or test_file, or all three must be given.",
        ),
        ({"bos_policy": "EOS"}, "bos_policy must be auto, eos, none or token:NAME but got 'EOS'. "
         "Did you mean eos?"),
        (
            {"data_preprocessing_fn_strategy": {"train": "per_batc"}},
            "data_preprocessing_fn_strategy.train must be once or per_batch but got 'per_batc'. "
            "Did you mean per_batch?",
        ),
        (
            {"loss_classes": {"train": KL}, "loss_classes_kwargs": {"train": {"KI": {"a": 1}}}},
            "loss_classes_kwargs.train.KI has no use because loss_classes.train holds KL.",
        ),
        (
            {"loss_classes_kwargs": {"train": {"OutputDefaultLoss": {}}}},
            "loss_classes_kwargs.train.OutputDefaultLoss has no use because loss_classes.train "
            "holds OutputsDefaultLoss. Did you mean loss_classes_kwargs.train.OutputsDefaultLoss?",
        ),
        ({"loss_classes": {"train": []}}, "loss_classes.train must name at least one class."),
    ],
)  # fmt: skip
def test_what_data_and_training_arguments_cannot_be(kwargs: dict[str, Any], problem: str) -> None:
    assert data(**kwargs).problems() == [problem]


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"model_task": "ml"}, "model_task must be lm, mlm, mntp, seq2seq or lm+mlm but got 'ml'. "
         "Did you mean mlm?"),
        ({"model_name_or_path": " "}, "model_name_or_path cannot be empty."),
        (
            {"model_modifier_fns": add_words, "model_modifier_fn_kwargs": {"add_word": {}}},
            "model_modifier_fn_kwargs.add_word has no use because model_modifier_fns holds "
            "add_words. Did you mean model_modifier_fn_kwargs.add_words?",
        ),
        (
            {"model_pre_train_step_callbacks_kwargs": {"KL": {}}},
            "model_pre_train_step_callbacks_kwargs.KL has no use because "
            "model_pre_train_step_callbacks is empty.",
        ),
    ],
)  # fmt: skip
def test_what_model_arguments_cannot_be(kwargs: dict[str, Any], problem: str) -> None:
    assert ModelArguments(**{"model_name_or_path": "gpt2", **kwargs}).problems() == [problem]


def test_usual_arguments_have_no_problems() -> None:
    assert data().problems() == []
    assert data(train_file=None, validation_file=None, test_file="a").problems() == []
    assert ModelArguments("gpt2").problems() == []
    assert OptimizationArguments().problems() == []


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"epochs": True}, "epochs must be an integer but got True (a truth value)."),
        ({"patience": "x"}, "patience must be an integer or None but got 'x' (text)."),
        (
            {"loss_classes": {"train": [KL(), "x"]}},
            "loss_classes.train must be a list, each item a class or function with its module, "
            "such as torch.sum but got <KL object, given in Python> (an object of class KL).",
        ),
        (
            {"train_optimizer_kwargs": None},
            "train_optimizer_kwargs must be a dictionary but got None.",
        ),
        (
            {"train_optimizer_kwargs": {1: 2}},
            "train_optimizer_kwargs must have text for its keys but got 1 (an integer).",
        ),
        (
            {"loss_classes": {"trian": [KL]}},
            "loss_classes.trian does not exist; the keys of loss_classes are train, validation. "
            "Did you mean loss_classes.train?",
        ),
        (
            {"loss_classes_kwargs": {"train.KL.dataset": "x.txt"}},
            "loss_classes_kwargs.train.KL.dataset does not exist; the keys of loss_classes_kwargs "
            "are train, validation. A dot inside a dictionary is part of a key: write "
            "loss_classes_kwargs.train.KL.dataset as one name, or `train: {KL.dataset: ...}`.",
        ),
    ],
)
def test_wrong_types_are_told_at_once(kwargs: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        data(**kwargs)
    assert caught.value.problems == (problem,)


def test_a_type_that_became_wrong_later_is_told() -> None:
    args = data()
    args.epochs = "x"
    assert args.problems() == ["epochs must be an integer but got 'x' (text)."]


def test_the_kwargs_of_data_types_are_always_there() -> None:
    args = data(
        loss_classes_kwargs=DELETE_FIELD, data_preprocessing_fn_kwargs={"test": DELETE_FIELD}
    )
    assert args.loss_classes_kwargs == {"train": {}, "validation": {}}
    kinds = ("train", "validation", "test", "probe")
    assert args.data_preprocessing_fn_kwargs == {kind: {} for kind in kinds}
    assert args.problems() == []


def test_no_repr_shows_a_token() -> None:
    kwargs: dict[str, Any] = {"token": "hf_secret", "model_kwargs": {"token": "hf_secret", "a": 1}}
    shown = repr(ModelArguments("gpt2", **kwargs))
    assert "secret" not in shown
    assert "model_kwargs={'a': 1}" in shown
    nested = {"train": {"OutputsDefaultLoss": {"model_kwargs": {"use_auth_token": "hf_secret"}}}}
    assert "secret" not in repr(data(loss_classes_kwargs=nested))


def test_a_study_is_imported_only_when_asked_for() -> None:
    args = OptimizationArguments()
    assert args.study_kwargs["sampler"] == Reference("optuna.samplers.GPSampler")
    args.resolve()
    import optuna

    assert args.study_kwargs["sampler"] is optuna.samplers.GPSampler
    wrapped = args.study_kwargs["pruner_kwargs"]["wrapped_pruner"]
    assert wrapped is optuna.pruners.WilcoxonPruner
