"""Groups of parameters, against optimizers of torch that are driven by hand."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
import transformers
import yaml

import finetune_lm
from crashing import difference
from families import family
from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments, UserError
from finetune_lm.arguments import config_yaml, parse_arguments
from finetune_lm.runs.device import make_accelerator
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.schedule import make_schedule
from setups import arguments, setup

AdamW, SGD, Muon = torch.optim.AdamW, torch.optim.SGD, torch.optim.Muon


class Small(torch.nn.Module):
    """Two layers, and an embedding that is tied to the last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.Embedding(7, 4)
        self.hidden = torch.nn.Linear(4, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight


def data_args(groups, optimizer=AdamW, kwargs=None, **more):
    return DataTrainingArguments(
        train_file="a",
        validation_file="b",
        train_optimizer=optimizer,
        train_optimizer_kwargs=kwargs or {"lr": 1e-2, "weight_decay": 0.1},
        train_optimizer_groups=groups,
        **more,
    )


def by_hand_decay(model, fused):
    named = dict(model.named_parameters())
    few = [named[name] for name in ("hidden.bias", "norm.weight", "norm.bias")]
    groups = [
        {"params": few, "weight_decay": 0.0},
        {"params": [named["embed.weight"]], "lr": 0.5},
        {"params": [named["hidden.weight"]]},
    ]
    return [AdamW(groups, lr=1e-2, weight_decay=0.1, fused=fused)]


def by_hand_muon(model, fused):
    named = dict(model.named_parameters())
    rest = [named[name] for name in ("embed.weight", "hidden.bias", "norm.weight", "norm.bias")]
    return [
        Muon([named["hidden.weight"]], lr=0.3),
        AdamW(rest, lr=1e-2, weight_decay=0.1, fused=fused),
    ]


def by_hand_three(model, fused):
    named = dict(model.named_parameters())
    return [
        Muon([named["hidden.weight"]], lr=0.3, weight_decay=0.0),
        SGD([named["embed.weight"]], lr=0.2, momentum=0.9, fused=fused),
        AdamW(
            [
                {"params": [named["hidden.bias"], named["norm.bias"]], "weight_decay": 0},
                {"params": [named["norm.weight"]]},
            ],
            lr=1e-2,
            weight_decay=0.1,
            fused=fused,
        ),
    ]


CASES = {
    "groups of one optimizer": (
        {
            "no_decay": {"params": ["*.bias", "norm.*"], "weight_decay": 0.0},
            # Of the two names of a tied parameter either will do.
            "fast": {"params": ["head.weight"], "lr": 0.5},
        },
        by_hand_decay,
    ),
    "muon": ({"muon": {"params": "hidden.weight", "optimizer": Muon, "lr": 0.3}}, by_hand_muon),
    "three optimizers": (
        {
            "no_decay": {"params": ["*.bias"], "weight_decay": 0},
            "muon": {"params": ["hidden.w*"], "optimizer": Muon, "lr": 0.3, "weight_decay": 0.0},
            "sgd": {"params": ["embed.*"], "optimizer": SGD, "lr": 0.2, "momentum": 0.9},
        },
        by_hand_three,
    ),
}


def gradients(model, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("schedule", [None, "linear"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_to_the_bit_as_by_hand(case, schedule, fast):
    groups, by_hand = CASES[case]
    args = data_args(groups, fast=fast, lr_scheduler=schedule, epochs=9)
    assert args.problems() == []
    start = Small()
    expected, found = copy.deepcopy(start), copy.deepcopy(start)
    hand = by_hand(expected, fused=fast or None)
    first_rates = [[group["lr"] for group in each.param_groups] for each in hand]

    def made():
        accelerator = make_accelerator(False)
        optimizer = make_optimizer(args, found)
        schedule = make_schedule(args, optimizer, 1)
        return accelerator.prepare(optimizer), schedule

    optimizer, follows = made()
    for step in range(7):
        if step == 4:
            # A run that is gone on with has another optimizer and another schedule.
            kept = copy.deepcopy(optimizer.state_dict()), follows and follows.state_dict()
            optimizer, follows = made()
            optimizer.load_state_dict(kept[0])
            if follows:
                follows.load_state_dict(kept[1])
        gradients(expected, step)
        gradients(found, step)
        for each, rates in zip(hand, first_rates, strict=True):
            if schedule:
                for group, rate in zip(each.param_groups, rates, strict=True):
                    group["lr"] = rate * ((9 - step) / 9)
            each.step()
        optimizer.step()
        optimizer.zero_grad()
        if follows:
            follows.step_is_done()
        assert all(p.grad is None for p in found.parameters())
        assert all(map(torch.equal, expected.parameters(), found.parameters()))
    for name, parameter in start.named_parameters():
        assert not torch.equal(parameter, found.get_parameter(name)), name


@pytest.mark.parametrize("case", CASES)
def test_the_first_rate_is_that_of_all_others(case):
    """Which is what is told of as the learning rate."""
    groups, _ = CASES[case]
    optimizer = make_optimizer(data_args(groups), Small())
    assert optimizer.param_groups[0]["lr"] == 1e-2
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_no_parameter_is_left_for_the_rest():
    model = Small()
    groups = {"all": {"params": "*", "optimizer": SGD, "lr": 1.0}}
    optimizer = make_optimizer(data_args(groups), model)
    assert type(optimizer) is SGD
    assert [len(group["params"]) for group in optimizer.param_groups] == [4 + 1]


WRONG = {
    "no params": ({"x": {"lr": 1.0}}, "train_optimizer_groups.x.params must be given"),
    "empty": ({"x": {"params": []}}, "train_optimizer_groups.x.params must be given"),
    "an index": ({"x": {"params": ["embed.weight[0:3]"]}}, "must be names of whole parameters"),
    "a number": ({"x": {"params": ["a", 3]}}, "must be names of parameters but has 3"),
    "no class": (
        {"x": {"params": "*", "optimizer": "muon"}},
        "train_optimizer_groups.x.optimizer must be a class with its module, such as "
        "torch.optim.Muon, but got 'muon'",
    ),
    "misspelt": (
        {"x": {"params": "*", "weight_decy": 0}},
        "train_optimizer_groups.x.weight_decy is not an argument of AdamW, which takes lr,",
    ),
    "of the other optimizer": (
        {"x": {"params": "*", "optimizer": Muon, "betas": [0.9, 0.9]}},
        "train_optimizer_groups.x.betas is not an argument of Muon",
    ),
    "no dictionary": ({"x": 3}, "train_optimizer_groups.x must be a dictionary but got 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_before_anything_is_loaded(case):
    groups, message = WRONG[case]
    try:
        [problem] = data_args(groups).problems()
    except UserError as error:
        [problem] = error.problems
    assert message in problem


class Whole(torch.optim.SGD):
    """An optimizer with an argument that is no property of a group."""

    def __init__(self, params, lr, sharpness=1.0):
        super().__init__(params, lr)
        self.sharpness = sharpness


WRONG_FOR_THE_MODEL = {
    "no such parameter": (
        {"x": {"params": ["hiden.weight"]}},
        "x.params: no parameter of the model is called 'hiden.weight'. There are hidden.weight",
    ),
    "in two groups": (
        {"x": {"params": ["embed.weight"]}, "y": {"params": ["head.*"]}},
        "must have each parameter in one group, but embed.weight is in x and in y.",
    ),
    "several in two groups": (
        {"x": {"params": ["*.weight"]}, "y": {"params": ["norm.*", "embed.*"]}},
        "but norm.weight (and 1 more) is in x and in y.",
    ),
    "not for this shape": (
        {"x": {"params": ["*.bias"], "optimizer": Muon}},
        "train_optimizer Muon does not take what train_optimizer_groups.x gives",
    ),
    "a value": (
        {"x": {"params": ["*.bias"], "lr": -1.0}},
        "does not take what train_optimizer_groups.x gives (lr=-1.0",
    ),
    "differentiable": (
        {"x": {"params": ["*.bias"], "optimizer": AdamW, "differentiable": True}},
        "train_optimizer_groups.x.differentiable must be False",
    ),
    "no optimizer of steps": (
        {"x": {"params": ["*.bias"], "optimizer": torch.optim.LBFGS}},
        "train_optimizer must be an optimizer like torch.optim.AdamW",
    ),
}


@pytest.mark.parametrize("case", WRONG_FOR_THE_MODEL)
def test_what_does_not_go_with_the_model(case):
    groups, message = WRONG_FOR_THE_MODEL[case]
    args = data_args(groups)
    assert args.problems() == []
    with pytest.raises(UserError) as caught:
        make_optimizer(args, Small())
    assert message in str(caught.value)


def test_an_argument_that_is_no_property_of_a_group():
    groups = {"x": {"params": ["*.bias"], "sharpness": 2.0}}
    kwargs = {"lr": 1.0, "weight_decay": "__delete_field__"}
    args = data_args(groups, Whole, kwargs)
    args.train_optimizer_kwargs.pop("weight_decay", None)
    with pytest.raises(UserError, match=r"x\.sharpness cannot differ from group to group of one"):
        make_optimizer(args, Small())
    groups["x"] |= {"optimizer": Whole, "lr": 1.0}
    args = data_args(groups, Whole, kwargs)
    args.train_optimizer_kwargs.pop("weight_decay", None)
    optimizer = make_optimizer(args, Small())
    assert [each.sharpness for each in optimizer.optimizers] == [1.0, 2.0]


ARGV = [
    *("--train_optimizer_groups.no_decay.params", "*.bias", "*.ln_*.weight"),
    *("--train_optimizer_groups.no_decay.weight_decay", "0"),
    *("--train_optimizer_groups.muon.params", "transformer.h.*.attn.*.weight"),
    *("--train_optimizer_groups.muon.optimizer", "torch.optim.Muon"),
    *("--train_optimizer_groups.muon.lr", "0.02"),
]
GROUPS = {
    "no_decay": {"params": ["*.bias", "*.ln_*.weight"], "weight_decay": 0},
    "muon": {"params": ["transformer.h.*.attn.*.weight"], "optimizer": Muon, "lr": 0.02},
}


def test_on_the_command_line_and_in_a_config_file(tmp_path, monkeypatch):
    base = ["--model_name_or_path", "tiny-lm", "--train_file", "a", "--validation_file", "b"]
    parsed = parse_arguments([*base, *ARGV])
    assert parsed.data.train_optimizer_groups == GROUPS
    written = config_yaml(parsed.model, parsed.data, parsed.optimization)
    assert yaml.safe_load(written)["train_optimizer_groups"]["muon"] == {
        "params": ["transformer.h.*.attn.*.weight"],
        "optimizer": "torch.optim.Muon",
        "lr": 0.02,
    }
    (tmp_path / "config.yaml").write_text(written)
    again = parse_arguments(["--config", str(tmp_path / "config.yaml")])
    assert again.data.train_optimizer_groups == GROUPS
    # A name that a file has stays text all the same, as does a single one.
    monkeypatch.chdir(tmp_path)
    argv = ["--train_optimizer_groups.x.params", "os.path"]
    assert parse_arguments([*base, *argv]).data.train_optimizer_groups["x"]["params"] == ["os.path"]


SHORT = {"epochs": 2, "eval_before_training": False, "max_test_samples": 6}


def run(output_dir, model_changes=None, **changed):
    model, data = setup("lm", **{**SHORT, **changed, "output_dir": output_dir})
    return finetune_lm.run(*arguments({**model, **(model_changes or {})}, data))


def test_stopped_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"train_optimizer_groups": GROUPS, "lr_scheduler": "linear"}
    whole = run("whole", **given).output_dir
    original, plan = Forward.__call__, {"left": 2}

    def forward(*args, **kwargs):
        plan["left"] -= 1
        if plan["left"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(Interrupted):
        run("parts", **given)
    finetune_lm.resume("parts")
    assert difference(whole, Path("parts")) == []
    # The groups make a difference.
    assert "metrics.csv.gz" in difference(whole, run("plain", lr_scheduler="linear").output_dir)


def test_what_is_frozen_stays_frozen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frozen = {
        "model_pre_train_step_callbacks": ["model_modifiers.PartiallyFrozenModelCallback"],
        "model_pre_train_step_callbacks_kwargs": {
            "PartiallyFrozenModelCallback": {
                "frozen_params": ["transformer.h.0.attn.c_attn.weight[0:5]", "*.ln_*"]
            }
        },
    }
    run("out", frozen, train_optimizer_groups=GROUPS, epochs=1)
    before = load_tiny()
    after = dict(transformers.AutoModelForCausalLM.from_pretrained("out/model").named_parameters())
    for name, parameter in before.items():
        assert torch.equal(parameter, after[name]) == (".ln_" in name), name
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(before[name][:5], after[name][:5])


def load_tiny():
    from finetune_lm.models.loading import load_model

    return dict(load_model(ModelArguments("tiny-lm")).model.named_parameters())


def test_a_study_searches_for_what_a_group_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = setup("lm", **{**SHORT, "epochs": 1, "test_file": None, "output_dir": "study"})
    model_args, args = arguments(model, {**data, "train_optimizer_groups": GROUPS})
    params = {
        "train_optimizer_groups": {"muon": {"lr": {"values": [0.001, 0.1], "type": "float"}}},
        "lr": {"values": [1e-4, 1e-3]},
    }
    study = finetune_lm.run(
        model_args, args, OptimizationArguments(do_optimize=True, params=params)
    )
    trial = study.trials.iloc[0]
    found = float(trial["train_optimizer_groups.muon.lr"])
    assert 0.001 <= found <= 0.1
    groups = {**GROUPS, "muon": {**GROUPS["muon"], "lr": found}}
    kwargs = {"lr": float(trial["lr"]), "weight_decay": 0.01}
    changed = {"epochs": 1, "test_file": None, "train_optimizer_kwargs": kwargs}
    single = run("single", train_optimizer_groups=groups, **changed)
    assert single.best_loss == float(trial["value"])


def test_over_all_parameters_of_a_model():
    model = copy.deepcopy(family("gpt2").model)
    optimizer = make_optimizer(data_args(GROUPS), model)
    in_groups = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in in_groups} == {id(p) for p in model.parameters()}
    assert len(in_groups) == len(list(model.parameters()))
