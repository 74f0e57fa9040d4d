"""Losses that are infinite or no number: the run stops and names them, or goes on without."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import finetune_lm
from crashing import difference
from finetune_lm import UserError
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.runs.context import Run
from helpers import write_lines
from setups import arguments, setup

TEXTS = [f"The {noun} has always broken the glass." for noun in ("man", "boy", "girl", "child")]
PLAIN = {
    "loss_classes": {"train": [OutputsDefaultLoss]},
    "shuffle_train": False,
    "per_device_train_batch_size": 2,
    "per_device_validation_batch_size": 2,
    "eval_before_training": False,
    "output_dir": "out",
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Spoiled(OutputsDefaultLoss):
    """The model's loss, but another number in some calls."""

    calls: dict[int, float] = {}  # noqa: RUF012 - set by each test

    def __init__(self, model, tokenizer):
        self.n = 0

    def __call__(self, outputs, labels):
        self.n += 1
        factor = self.calls.get(self.n)
        return outputs.loss if factor is None else outputs.loss * factor

    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]


def begin(monkeypatch, calls, where="train", **changed):
    monkeypatch.setattr(Spoiled, "calls", calls)
    train = write_lines(Path("teach.txt.gz"), TEXTS)
    check = write_lines(Path("check.txt.gz"), TEXTS[:3])
    model, data = setup("lm", **{**PLAIN, "train_file": train, "validation_file": check, **changed})
    del data["test_file"]
    model["model_pre_train_step_callbacks"] = []
    model["config_kwargs"] = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    data["loss_classes"] = {where: [Spoiled]}
    return finetune_lm.run(*arguments(model, data))


def record(output_dir="out"):
    return json.loads((Path(output_dir) / "run.json").read_text())


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    ("where", "call", "message"),
    [
        (
            "train",
            4,  # two batches an epoch
            "losses must be finite but in epoch 1, train batch 1, came loss nan, Spoiled nan. In "
            "it are example_num 2, 3 of teach.txt.gz. What was recorded before is kept. A lower lr "
            "often helps; --on_nan skip leaves such steps out.",
        ),
        (
            "validation",
            2,
            "losses must be finite but in epoch 0, validation batch 1, came loss nan, Spoiled nan. "
            "In it is example_num 2 of check.txt.gz. What was recorded before is kept. A lower lr "
            "often helps; --on_nan skip leaves such steps out.",
        ),
    ],
)
def test_the_run_stops_and_names_epoch_batch_and_examples(
    monkeypatch, where, call, message, is_late
):
    if is_late:  # as on a GPU
        monkeypatch.setattr(Run, "waits_for_numbers", False)
    with pytest.raises(UserError) as caught:
        begin(monkeypatch, {call: math.nan}, where)
    assert str(caught.value) == message
    assert record()["state"] == "failed"
    metrics = pd.read_csv("out/metrics.csv.gz")
    assert metrics["loss"].notna().all()
    seen = metrics[["epoch", "dataset_type", "batch_number"]].drop_duplicates().values.tolist()
    every_batch = [
        [epoch, dataset_type, batch]
        for epoch in range(3)
        for dataset_type in ("train", "validation")
        for batch in range(2)
    ]
    assert seen == every_batch[: every_batch.index([int(call > 2), where, 1])]


def test_examples_are_named_in_the_order_of_the_batch_and_not_too_many(monkeypatch):
    train = [f"The man has broken {n} glasses." for n in range(100)]
    path = write_lines(Path("many.txt.gz"), train)
    with pytest.raises(UserError) as caught:
        begin(
            monkeypatch,
            {1: math.inf},
            train_file=path,
            max_train_samples=None,
            per_device_train_batch_size=100,
        )
    shown = ", ".join(map(str, range(64)))
    assert f"In it are example_num {shown} and 36 more of many.txt.gz." in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_is_skipped_as_if_it_had_not_been(monkeypatch, capsys, value):
    result = begin(monkeypatch, {3: value}, on_nan="skip")
    assert "1 steps were skipped because a loss was not finite" in capsys.readouterr().err
    assert record()["skipped_steps"] == 1
    assert record()["state"] == "finished"
    metrics = result.metrics
    # Its rows are there, with what it cost.
    skipped = metrics[(metrics["dataset_type"] == "train") & (metrics["epoch"] == 1)]
    skipped = skipped[skipped["batch_number"] == 0]
    assert set(skipped["example_num"]) == {0, 1}
    assert skipped["surprisal"].notna().all()
    assert not skipped["loss"].map(lambda loss: math.isfinite(loss)).any()


def test_weights_and_optimizer_are_untouched_by_a_skipped_step(monkeypatch):
    from finetune_lm.training import loop

    states = []
    learn = loop.learn

    def watched(run, found, update):
        learner = update._learner

        def state():
            parts = [p.detach().clone() for p in learner.model.parameters()]
            return parts + [
                value.clone()
                for each in learner.optimizer.state_dict()["state"].values()
                for value in each.values()
            ]

        before = state()
        returned = learn(run, found, update)
        after = state()
        same = len(before) == len(after) and all(map(torch.equal, before, after))
        gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
        states.append((same, len(gradients)))
        return returned

    monkeypatch.setattr(loop, "learn", watched)
    begin(monkeypatch, {2: math.nan, 3: math.nan}, on_nan="skip")
    assert states == [(n in (2, 3), 0) for n in range(1, 7)]


def test_a_validation_loss_that_is_not_finite_is_no_improvement(monkeypatch, capsys):
    """Epochs 0 and 2 have one such batch each; epoch 1 is the best, since it is the only one."""
    result = begin(monkeypatch, {1: math.nan, 6: -math.inf}, "validation", on_nan="skip")
    assert result.best_epoch == 1
    assert record()["unjudged_epochs"] == 2
    assert record()["skipped_steps"] == 0
    assert "After 2 epochs the validation loss was not finite" in capsys.readouterr().err
    validation = result.metrics[result.metrics["dataset_type"] == "validation"]
    assert validation.groupby("epoch").size().nunique() == 1


def test_no_validation_loss_at_all(monkeypatch):
    calls = dict.fromkeys(range(1, 7), math.nan)
    with pytest.raises(UserError, match="no epoch had a finite validation loss"):
        begin(monkeypatch, calls, "validation", on_nan="skip")
    assert len(pd.read_csv("out/metrics.csv.gz")["epoch"].unique()) == 3
    assert record()["best_validation_loss"] is None


def spoil_weights(model, tokenizer):
    """Logits are no numbers from the start."""
    torch.nn.init.constant_(next(model.parameters()), math.nan)


def spoil_embeddings_of_girl(model, tokenizer):
    """Texts with that word cost what is no number, from the word on."""

    def spoil(_, args, output):
        where = (args[0] == token).cumsum(dim=-1) > 0
        return output.masked_fill(where[..., None], math.nan)

    [token, *_] = tokenizer(" girl", add_special_tokens=False)["input_ids"]
    model.get_input_embeddings().register_forward_hook(spoil)


def test_a_test_whose_surprisals_are_no_numbers_stops_and_names_the_example(capsys):
    path = write_lines(Path("test.txt.gz"), TEXTS)
    model, data = setup("lm", test_file=[path], per_device_test_batch_size=3, output_dir="out")
    data = {name: data[name] for name in ("test_file", "per_device_test_batch_size", "output_dir")}
    model["model_modifier_fns"] = [spoil_embeddings_of_girl]
    model["model_pre_train_step_callbacks"] = []
    with pytest.raises(UserError) as caught:
        finetune_lm.run(*arguments(model, data))
    said = str(caught.value)
    assert said.startswith("surprisals must be finite but that of ")
    assert "in example_num 2 of test.txt.gz is nan." in said
    assert not list(Path("out").glob("*test_results*"))
    result = finetune_lm.run(*arguments(model, {**data, "on_nan": "skip"}))
    rows = result.test_results
    by_example = rows["surprisal"].isna().groupby(rows["example_num"]).any()
    assert by_example.tolist() == [False, False, True, False]


def test_rows_of_a_model_that_computes_no_numbers(monkeypatch):
    train = write_lines(Path("teach.txt.gz"), TEXTS)
    model, data = setup("lm", **{**PLAIN, "train_file": train, "validation_file": train})
    model["model_modifier_fns"] = [spoil_weights]
    with pytest.raises(UserError, match="in epoch 0 none of the 2 training batches"):
        finetune_lm.run(*arguments(model, {**data, "on_nan": "skip"}))
    metrics = finetune_lm.load_metrics("out")
    assert len(metrics) == pd.read_csv("out/metrics.csv.gz").shape[0] > 20
    assert metrics["surprisal"].isna().all()
    assert metrics["loss"].isna().all()


def test_nothing_is_learned_any_more(monkeypatch):
    with pytest.raises(
        UserError, match="in epoch 1 none of the 2 training batches had a finite loss"
    ):
        begin(monkeypatch, {3: math.nan, 4: math.inf}, on_nan="skip")
    assert record()["skipped_steps"] == 2


def test_the_count_goes_on_when_the_run_is_resumed(monkeypatch):
    import os
    import signal

    from finetune_lm.runs.interruption import Interrupted
    from finetune_lm.training import loop

    def begin_in(output_dir):
        calls = {2: math.nan, 5: math.nan}
        return begin(monkeypatch, calls, on_nan="skip", output_dir=output_dir)

    begin_in("whole")
    learn, steps = loop.learn, []

    def stopped(*args):
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(*args)

    monkeypatch.setattr(loop, "learn", stopped)
    with pytest.raises(Interrupted):
        begin_in("parts")
    finetune_lm.resume("parts")
    assert difference(Path("whole"), Path("parts")) == []
    assert record("whole")["skipped_steps"] == record("parts")["skipped_steps"] == 2


def test_a_stopped_run_goes_on_with_skip(monkeypatch):
    """The same command that stopped, and then one argument more."""
    with pytest.raises(UserError, match="must be finite"):
        begin(monkeypatch, {4: math.nan}, output_dir="parts")
    begin(monkeypatch, {4: math.nan}, output_dir="whole", on_nan="skip")
    from finetune_lm.arguments import parse_arguments

    parsed = parse_arguments(["--resume", "parts", "--on_nan", "skip"])
    finetune_lm.resume("parts", parsed.model, parsed.data)
    assert difference(Path("whole"), Path("parts")) == []


def test_on_nan_must_be_one_of_two():
    args = finetune_lm.DataTrainingArguments(test_file="x.txt", on_nan="ignore")
    assert args.problems() == ["on_nan must be stop or skip but got 'ignore'."]
