"""Optimizers with two sets of weights: one to learn with, and their average to be judged by."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
import transformers

import finetune_lm
from crashing import difference
from finetune_lm.model_modifiers import ModelCallback, PartiallyFrozenModelCallback
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from setups import arguments, setup


class AveragedSGD(torch.optim.SGD):
    """Learns as SGD does, and is judged by the mean of the weights after each step.

    Its mode is in no state, as that of a user's own may be.
    """

    learns = True

    def step(self, closure=None):
        assert self.learns
        super().step(closure)
        for state, p in self.states():
            state["n"] = state.get("n", 0) + 1
            mean = state.setdefault("mean", torch.zeros_like(p))
            mean += (p.detach() - mean) / state["n"]

    def train(self):
        if not self.learns:
            self.swap()
        self.learns = True

    def eval(self):
        if self.learns:
            self.swap()
        self.learns = False

    @torch.no_grad()
    def swap(self):
        for state, p in self.states():
            if "mean" in state:
                here, there = p.clone(), state["mean"].clone()
                p.copy_(there)
                state["mean"].copy_(here)

    def states(self):
        return [(self.state[p], p) for p in self.param_groups[0]["params"]]


class ScheduleFreeSGD(torch.optim.Optimizer):
    """That of Defazio et al. (2024): between its two sets no way back is exact to the last bit."""

    def __init__(self, params, lr, beta=0.9, weight_decay=0.0):
        given = {"lr": lr, "beta": beta, "weight_decay": weight_decay}
        super().__init__(params, {**given, "k": 0, "mode": False})

    def train(self):
        self.go(True, lambda beta: 1 - beta)

    def eval(self):
        self.go(False, lambda beta: 1 - 1 / beta)

    @torch.no_grad()
    def go(self, mode, weight):
        for group in self.param_groups:
            if group["mode"] != mode:
                group["mode"] = mode
                for p in group["params"]:
                    if p in self.state:
                        p.lerp_(self.state[p]["z"], weight(group["beta"]))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["mode"]
            group["k"] += 1
            part, beta, lr = 1 / group["k"], group["beta"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                z = self.state[p].setdefault("z", p.clone())
                grad = p.grad + group["weight_decay"] * p
                p.lerp_(z, part).add_(grad, alpha=lr * (beta * (1 - part) - 1))
                z.sub_(grad, alpha=lr)


SHORT = {
    "epochs": 2,
    "eval_before_training": False,
    "max_test_samples": 6,
    "train_optimizer_kwargs": {"lr": 0.05},
}


def run(output_dir, optimizer, callbacks=None, **changed):
    model, data = setup("lm", **{**SHORT, **changed, "output_dir": output_dir})
    if callbacks is not None:
        model["model_pre_train_step_callbacks"] = []
        model |= callbacks
    return finetune_lm.run(*arguments(model, {**data, "train_optimizer": optimizer}))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


trajectory = []


class Follow(ModelCallback):
    def __call__(self, epoch, batch):
        trajectory.append({n: p.detach().clone() for n, p in self.model.named_parameters()})


def saved(output_dir):
    model = transformers.AutoModelForCausalLM.from_pretrained(Path(output_dir, "model"))
    return dict(model.named_parameters())


def test_what_is_judged_and_saved_is_the_average_and_what_learns_is_not():
    trajectory.clear()
    follow = {"model_callbacks": {"post_train_step": [Follow]}}
    plain = run("plain", torch.optim.SGD, follow)
    averaged = run("averaged", AveragedSGD, {})
    one, two = plain.metrics, averaged.metrics
    is_train = one["dataset_type"] == "train"
    assert one[is_train].equals(two[is_train])
    assert not one[~is_train]["surprisal"].equals(two[~is_train]["surprisal"])
    n_steps = 3 * (averaged.best_epoch + 1)
    for name, parameter in saved("averaged").items():
        mean = torch.stack([each[name].double() for each in trajectory[:n_steps]]).mean(dim=0)
        torch.testing.assert_close(parameter.double(), mean, rtol=0, atol=1e-6)
    # The same weights give the validation rows of the best epoch and, later, those of a test.
    again = finetune_lm.run(
        *arguments(
            {"model_name_or_path": "averaged/model", "tokenizer_name": "averaged/tokenizer"},
            {
                "test_file": [setup("lm")[1]["validation_file"]],
                "max_test_samples": 8,
                "output_dir": "again",
            },
        )
    ).test_results
    best = two[~is_train & (two["epoch"] == averaged.best_epoch)]
    torch.testing.assert_close(
        *(torch.tensor(t["surprisal"].dropna().to_numpy()) for t in (again, best)),
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("optimizer", "stops"), [(AveragedSGD, [2, 4]), (ScheduleFreeSGD, [2, 3, 4, 5])]
)
def test_stopped_and_gone_on_with(monkeypatch, optimizer, stops):
    """In the middle of training, at its end, in validation, at its end."""
    original, plan = Forward.__call__, {"left": 0}

    def forward(*args, **kwargs):
        plan["left"] -= 1
        if plan["left"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    whole = run("whole", optimizer).output_dir
    monkeypatch.setattr(Forward, "__call__", forward)
    for number in stops:
        plan["left"] = number
        with pytest.raises(Interrupted):
            run(f"parts{number}", optimizer)
        finetune_lm.resume(f"parts{number}")
        assert difference(whole, Path(f"parts{number}")) == []


def test_frozen_entries_are_frozen_in_both_sets():
    name = "transformer.wte.weight"
    frozen = {
        "model_callbacks": {"pre_train_step": [PartiallyFrozenModelCallback]},
        "model_callbacks_kwargs": {
            "pre_train_step": {
                "PartiallyFrozenModelCallback": {"frozen_params": [f"{name}[0:900]", "*.bias"]}
            }
        },
    }
    kwargs = {"lr": 0.05, "weight_decay": 0.5}
    run("out", ScheduleFreeSGD, frozen, train_optimizer_kwargs=kwargs)
    before = saved_of_tiny_lm()
    after = saved("out")
    assert torch.equal(before[name][:900], after[name][:900])
    assert not torch.equal(before[name][900:], after[name][900:])
    for each in before:
        if each != name:
            assert torch.equal(before[each], after[each]) == each.endswith(".bias")


def saved_of_tiny_lm():
    from finetune_lm import ModelArguments
    from finetune_lm.models.loading import load_model

    return dict(load_model(ModelArguments("tiny-lm")).model.named_parameters())
