"""What is searched for, and each way in which that can be wrong."""

from __future__ import annotations

import optuna
import pytest
import torch

from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.arguments import parse_arguments
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.study.search_space import search_space
from helpers import write_lines
from studies import ListLoss


class KL(OutputsDefaultLoss):
    def __init__(self, model, tokenizer, scaleby=2.5, n=20, **more):
        super().__init__(model, tokenizer)


class KL_Mean(OutputsDefaultLoss):  # noqa: N801
    def __init__(self, model, tokenizer, scaleby=2):
        super().__init__(model, tokenizer)


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        write_lines(tmp_path / f"{name}.txt.gz", ["The man."])
    return tmp_path


def args(**kwargs):
    return DataTrainingArguments(
        **{"train_file": "a.txt.gz", "validation_file": "b.txt.gz", **kwargs}
    )


def found(params, **kwargs):
    return [
        (p.name, p.kind, p.choices if p.kind == "categorical" else p.bounds)
        for p in search_space(params, args(**kwargs))
    ]


def problems(params, **kwargs):
    with pytest.raises(UserError) as caught:
        search_space(params, args(**kwargs))
    return list(caught.value.problems)


pytestmark = pytest.mark.usefixtures("directory")


@pytest.mark.parametrize(
    ("name", "specification", "kind", "bounds"),
    [
        ("lr", {"values": [2e-6, 2e-5]}, "float", (2e-6, 2e-5)),
        ("lr", {"values": [2e-5, 2e-6]}, "float", (2e-6, 2e-5)),
        # The type is that of the value without a study, not that of the ends.
        ("lr", {"values": [1, 2]}, "float", (1.0, 2.0)),
        ("epochs", {"values": [3, 1]}, "int", (1, 3)),
        ("epochs", {"values": [1.0, 1e1]}, "int", (1, 10)),
        ("delta", {"values": [0, 1]}, "float", (0, 1)),
        ("delta", {"values": [0, 3], "type": "int"}, "int", (0, 3)),
        ("per_device_train_batch_size", {"values": [8, 32]}, "int", (8, 32)),
        # A weight decay of 0 by default may have a fraction all the same.
        ("weight_decay", {"values": [0, 0.1]}, "float", (0, 0.1)),
        ("weight_decay", {"values": [0, 1]}, "int", (0, 1)),
        ("weight_decay", {"values": [0, 1], "type": "float"}, "float", (0, 1)),
        # None without a study: the values tell.
        ("patience", {"values": [5, 50]}, "int", (5, 50)),
        # What the optimizer takes, though nobody gave it.
        ("eps", {"values": [1e-8, 1e-6]}, "float", (1e-8, 1e-6)),
    ],
)
def test_ranges(name, specification, kind, bounds):
    assert found({name: specification}) == [(name, kind, bounds)]


def test_an_int_default_does_not_stay_one_where_float_is_asked_for():
    """It once made learning rates of 0."""
    one = {"train_optimizer_kwargs": {"lr": 1}}
    values = {"lr": {"values": [1e-6, 1e-4], "type": "float"}}
    for params in (values, {"lr": {"values": [1e-6, 1e-4]}}):
        [parameter] = search_space(params, args(**one))
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        tried = [parameter.suggest(study.ask()) for _ in range(20)]
        assert all(1e-6 <= value <= 1e-4 for value in tried)
    # As documented, whole numbers otherwise.
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    [parameter] = search_space({"lr": {"values": [1, 10]}}, args(**one))
    tried = [parameter.suggest(study.ask()) for _ in range(20)]
    assert all(type(value) is int and 1 <= value <= 10 for value in tried)
    assert len(set(tried)) > 3


def test_categorical_parameters_stand_for_themselves():
    """They once fell through into the range of the parameter before them."""
    params = {
        "epochs": {"values": [1, 2]},
        "shuffle_train": {"values": [True, False]},
        "bos_policy": {"values": ["auto", "eos", "none"]},
        "train_optimizer": {"values": [torch.optim.SGD, torch.optim.AdamW]},
        "patience": {"values": [None, 5]},
        "per_device_train_batch_size": {"values": [8, 16, 32], "type": "categorical"},
    }
    parameters = search_space(params, args())
    assert [p.kind for p in parameters] == ["int", *["categorical"] * 5]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(40)]
    for parameter in parameters:
        tried = {parameter.suggest(trial) for trial in trials}
        assert tried == set(params[parameter.name]["values"])
        # A storage can hold what it is given.
        for trial in trials:
            assert isinstance(trial.params[parameter.name], int | str | None)
            assert parameter.value_of(trial.params[parameter.name]) in tried


def test_lists_and_dictionaries_are_choices():
    params = {
        "train_optimizer_kwargs": {"values": [{"lr": 1e-3}, {"lr": 1e-4, "weight_decay": 0.1}]},
        "loss_classes": {"train": {"values": [OutputsDefaultLoss, [OutputsDefaultLoss, KL_Mean]]}},
    }
    kwargs, losses = search_space(params, args())
    assert kwargs.stored_choices == ['{"lr": 0.001}', '{"lr": 0.0001, "weight_decay": 0.1}']
    assert losses.name == "loss_classes.train"
    assert losses.stored_choices[0] == "loss_classes.OutputsDefaultLoss"
    assert losses.value_of(losses.stored_choices[1]) == [OutputsDefaultLoss, KL_Mean]


def test_one_parameter_for_each_item_of_a_list():
    kwargs = {
        "loss_classes": {"train": [OutputsDefaultLoss, KL]},
        "loss_classes_kwargs": {"train": {"KL": {"scaleby": [2.5, 1], "n": [20, 20]}}},
    }
    params = {
        "train_KL_scaleby": {"values": [1, 3]},
        "train_KL_n": {"values": [5, 20], "suggest_kwargs": {"step": 5}},
    }
    parameters = search_space(params, args(**kwargs))
    assert [(p.name, p.kind, p.bounds, p.suggest_kwargs) for p in parameters] == [
        ("train_KL_scaleby_0", "float", (1, 3), {}),
        ("train_KL_scaleby_1", "float", (1, 3), {}),
        ("train_KL_n_0", "int", (5, 20), {"step": 5}),
        ("train_KL_n_1", "int", (5, 20), {"step": 5}),
    ]
    assert parameters[1].place == ("loss_classes_kwargs", "train", "KL", "scaleby", 1)
    # One item may be named alone; both ways cannot set the same.
    alone = {"train_KL_scaleby_1": {"values": [1, 3]}, "betas": {"values": [0.5, 0.9]}}
    assert [name for name, *_ in found(alone, **kwargs)] == [
        *("train_KL_scaleby_1", "betas_0", "betas_1"),
    ]
    assert problems({**params, **alone}, **kwargs) == [
        "params.train_KL_scaleby_1 cannot be given beside params.train_KL_scaleby, which sets the "
        "same value."
    ]


def test_one_value_for_all_data_sets_is_one_parameter():
    params = {"train_KL_scaleby": {"values": [1, 3]}}
    loss = {"loss_classes": {"train": [KL]}}
    assert found(params, **loss) == [("train_KL_scaleby", "float", (1, 3))]
    kwargs = {"loss_classes_kwargs": {"train": {"KL": {"scaleby": 2}}}}
    assert found(params, **loss, **kwargs) == [("train_KL_scaleby", "int", (1, 3))]


def test_keyword_arguments_of_losses_are_found_by_the_longest_name():
    kwargs = {"loss_classes": {"train": [KL, KL_Mean], "validation": [KL_Mean]}}
    params = {
        "train_KL_Mean_scaleby": {"values": [1, 3]},
        "validation_KL_Mean_scaleby": {"values": [1, 3]},
        "train_KL_whatever": {"values": ["x", "y"]},
    }
    places = [p.place[1:] for p in search_space(params, args(**kwargs))]
    assert places == [
        ("train", "KL_Mean", "scaleby"),
        ("validation", "KL_Mean", "scaleby"),
        ("train", "KL", "whatever"),
    ]


def test_keys_of_dictionaries_by_their_path():
    from finetune_lm.data_preprocessing import identity, mask_random_tokens

    params = {
        "data_preprocessing_fn_kwargs": {"train": {"mask_prop": {"values": [0.1, 0.3]}}},
        "data_preprocessing_fn_strategy": {"train": {"values": ["once", "per_batch"]}},
        "train_optimizer_kwargs": {"lr": {"values": [1e-5, 1e-4]}},
        "loss_classes_kwargs": {"train": {"ListLoss": {"scaleby": {"values": [1, 2]}}}},
    }
    kwargs = {
        "data_preprocessing_fn": {"train": mask_random_tokens, "validation": identity},
        "loss_classes": {"train": ListLoss},
    }
    assert [name for name, *_ in found(params, **kwargs)] == [
        "data_preprocessing_fn_kwargs.train.mask_prop",
        "data_preprocessing_fn_strategy.train",
        "lr",
        "train_ListLoss_scaleby",
    ]


def test_what_the_command_line_says():
    parsed = parse_arguments(
        [
            *("--model_name_or_path", "gpt2", "--train_file", "a.txt.gz"),
            *("--validation_file", "b.txt.gz", "--do_optimize"),
            *("--params.lr", "__delete_field__"),
            *("--params.delta.values", "1e-5", "1e-4", "--params.delta.suggest_kwargs.log"),
            *("--params.train_optimizer.values", "torch.optim.SGD", "torch.optim.AdamW"),
        ]
    )
    delta, optimizer = search_space(parsed.optimization.params, parsed.data)
    assert (delta.name, delta.bounds, delta.suggest_kwargs) == (
        "delta",
        (1e-5, 1e-4),
        {"log": True},
    )
    assert optimizer.choices == (torch.optim.SGD, torch.optim.AdamW)


class Outer:
    class Local:
        pass


def local():
    def inner():
        pass

    return inner


WRONG = {
    "unknown": (
        {"epoch": {"values": [1, 2]}},
        "params.epoch is not an argument for data and training, nor one of the optimizer or of a "
        "loss. Did you mean params.epochs?",
    ),
    "unknown keyword": (
        {"train_ListLoss_scalby": {"values": [1, 2]}},
        "params.train_ListLoss_scalby is not an argument for data and training, nor one of the "
        "optimizer or of a loss. Did you mean params.train_ListLoss_scaleby?",
    ),
    "of the model": (
        {"model_name_or_path": {"values": ["a", "b"]}},
        "params.model_name_or_path cannot be searched for: a study has one model, and searches "
        "for arguments for data and training, and for those of model_modifier_fn_kwargs.",
    ),
    "no values": (
        {"lr": {"suggest_kwargs": {"log": True}}},
        "params.lr.values must be given: the ends of a range of numbers, or the choices.",
    ),
    "one value": (
        {"lr": {"values": [1e-4]}},
        "params.lr.values must be at least two values, the ends of a range of numbers or the "
        "choices, but got 0.0001 (a number).",
    ),
    "a single value": (
        {"lr": {"values": 1e-4}},
        "params.lr.values must be at least two values, the ends of a range of numbers or the "
        "choices, but got 0.0001 (a number).",
    ),
    "three numbers": (
        {"epochs": {"values": [1, 2, 3]}},
        "params.epochs.values must be two numbers, the ends of a range, but got 3. For choices "
        "give params.epochs.type categorical.",
    ),
    "twice the same": (
        {"lr": {"values": [1e-4, 1e-4]}},
        "params.lr.values must be two different numbers but got 0.0001 twice.",
    ),
    "text for a number": (
        {"lr": {"values": ["a", 1e-4]}},
        "params.lr.values must be numbers, because the default is a number, but got 'a' (text). "
        "For choices give params.lr.type categorical.",
    ),
    "a truth value for a number": (
        {"epochs": {"values": [True, 3]}},
        "params.epochs.values must be numbers, because the default is a number, but got True (a "
        "truth value). For choices give params.epochs.type categorical.",
    ),
    "infinite": ({"lr": {"values": [0, float("inf")]}}, "params.lr.values must be finite but got "
        "inf."),
    "a fraction for an integer": (
        {"epochs": {"values": [1.5, 3]}},
        "params.epochs.values must be integers, because the default is 250, but got 1.5 (a "
        "number). For fractions give params.epochs.type float.",
    ),
    "a fraction where int is asked for": (
        {"lr": {"values": [0.1, 3], "type": "int"}},
        "params.lr.values must be integers, because its type is int, but got 0.1 (a number). For "
        "fractions give params.lr.type float.",
    ),
    "what a run could not use": (
        {"epochs": {"values": [0, 3]}},
        "params.epochs.values: epochs must be at least 1 but got 0.",
    ),
    "what a run could not use with the rest": (
        {"min_epochs": {"values": [1, 1000]}},
        "params.min_epochs.values: min_epochs cannot be larger than epochs (250) but got 1000.",
    ),
    "float of what must be whole": (
        {"epochs": {"values": [1, 2.5], "type": "float"}},
        "params.epochs.values: epochs must be an integer but got 1.0 (a number).",
    ),
    "a choice that does not exist": (
        {"bos_policy": {"values": ["auto", "EOS"]}},
        "params.bos_policy.values: bos_policy must be auto, eos, none or token:NAME but got 'EOS'. "
        "Did you mean eos?",
    ),
    "a file that is not there": (
        {"train_file": {"values": ["a.txt.gz", "x.txt.gz"]}},
        "params.train_file.values: there is no file x.txt.gz.",
    ),
    "type of what is no number": (
        {"shuffle_train": {"values": [True, False], "type": "int"}},
        "params.shuffle_train.type can be int only for a number, but the default is True (a truth "
        "value). Its values are choices; leave the type out.",
    ),
    "no type": (
        {"lr": {"values": [1, 2], "type": "flaot"}},
        "params.lr.type must be float, int or categorical but got 'flaot' (text). Did you mean "
        "float?",
    ),
    "an unknown key": (
        {"lr": {"value": [1, 2]}},
        "params.lr.value does not exist; the keys are values, type, suggest_kwargs. Did you mean "
        "params.lr.values?",
    ),
    "log from 0": (
        {"lr": {"values": [0, 1], "suggest_kwargs": {"log": True}}},
        "params.lr.suggest_kwargs.log needs a range above 0, because it is searched on a "
        "logarithmic scale, but the range begins at 0.",
    ),
    "log below 0": (
        {"lr": {"values": [-1.5, 1], "suggest_kwargs": {"log": True}}},
        "params.lr.suggest_kwargs.log needs a range above 0, because it is searched on a "
        "logarithmic scale, but the range begins at -1.5.",
    ),
    "log and step": (
        {"lr": {"values": [1, 9], "suggest_kwargs": {"log": True, "step": 2}}},
        "params.lr.suggest_kwargs.log and params.lr.suggest_kwargs.step cannot be given together.",
    ),
    "log is a text": (
        {"lr": {"values": [1, 9], "suggest_kwargs": {"log": "yes"}}},
        "params.lr.suggest_kwargs.log must be True or False but got 'yes' (text).",
    ),
    "step too large": (
        {"delta": {"values": [0, 1], "suggest_kwargs": {"step": 2}}},
        "params.delta.suggest_kwargs.step must not be larger than the range, from 0 to 1, but got "
        "2.",
    ),
    "step of 0": (
        {"delta": {"values": [0, 1], "suggest_kwargs": {"step": 0}}},
        "params.delta.suggest_kwargs.step must be a number above 0 but got 0 (an integer).",
    ),
    "a fraction as step": (
        {"epochs": {"values": [1, 9], "suggest_kwargs": {"step": 1.5}}},
        "params.epochs.suggest_kwargs.step must be an integer, as the values are, but got 1.5.",
    ),
    "unknown suggest_kwargs": (
        {"lr": {"values": [1, 9], "suggest_kwargs": {"logs": True}}},
        "params.lr.suggest_kwargs.logs does not exist; the keys for a range of numbers are log "
        "and step. Did you mean log?",
    ),
    "suggest_kwargs for choices": (
        {"shuffle_train": {"values": [True, False], "suggest_kwargs": {"log": True}}},
        "params.shuffle_train.suggest_kwargs (log) cannot be given for choices, only for a range "
        "of numbers.",
    ),
    "the same choice twice": (
        {"patience": {"values": [None, 1, True]}},
        "params.patience.values must be different but got True (a truth value) twice.",
    ),
    "a choice without a name": (
        {"train_optimizer": {"values": [torch.optim.SGD, local()]}},
        "params.train_optimizer.values: a choice must be text, a number, a list or dictionary of "
        "these, or a class or function that can be imported by its name, but got <function inner, "
        "given in Python> (a function). Put it into a module.",
    ),
    "one value by two names": (
        {
            "lr": {"values": [1, 2]},
            "train_optimizer_kwargs": {"lr": {"values": [1, 2]}},
        },
        "params.train_optimizer_kwargs.lr cannot be given beside params.lr, which sets the same "
        "value.",
    ),
    "a loss that is not used": (
        {"loss_classes_kwargs": {"validation": {"ListLoss": {"scaleby": {"values": [1, 2]}}}}},
        "params.loss_classes_kwargs.validation.ListLoss.scaleby has no use because "
        "loss_classes.validation has no ListLoss.",
    ),
    "a key that does not exist": (
        {"data_preprocessing_fn_kwargs": {"trian": {"x": {"values": [1, 2]}}}},
        "params.data_preprocessing_fn_kwargs.trian.x is about "
        "data_preprocessing_fn_kwargs.trian, which does not exist; the keys of "
        "data_preprocessing_fn_kwargs are train, validation, test, probe. Did you mean "
        "params.data_preprocessing_fn_kwargs.train?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_searched_for(case):
    params, problem = WRONG[case]
    assert problems(params, loss_classes={"train": [ListLoss]}) == [problem]


def test_all_problems_are_told_together():
    cases = [WRONG[case] for case in ("unknown", "of the model", "one value", "log from 0")]
    params = {name: params[name] for params, _ in cases[:2] for name in params}
    params |= {"lr": {"values": [1]}, "delta": cases[3][0]["lr"]}
    told = problems(params)
    assert told[:3] == [problem for _, problem in cases[:2]] + [
        cases[2][1].replace("0.0001 (a number)", "1 (an integer)")
    ]
    assert told[3].startswith("params.delta.suggest_kwargs.log needs a range above 0")
    assert len(told) == 4


def test_what_has_no_effect_is_said(capsys):
    params = {"per_device_test_batch_size": {"values": [1, 8]}}
    assert len(search_space(params, args())) == 1
    said = capsys.readouterr().err
    assert "params.per_device_test_batch_size has no effect on the validation loss" in said
