"""Trainings from Python: which losses and rows they have, and when they end."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

import finetune_lm
from families import family
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import OutputsDefaultLoss
from helpers import save_family
from short_runs import TimesTwo, run, train_args

pytest_plugins = ["short_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_best_loss_is_that_of_the_table(models, files):
    result = run(models["gpt2"], train_args(files))
    validation = result.metrics[result.metrics["dataset_type"] == "validation"]
    by_epoch = validation.groupby("epoch")["surprisal"].mean() * math.log(2)
    assert result.best_loss == pytest.approx(by_epoch.min(), rel=1e-4)
    assert result.best_epoch == by_epoch.idxmin()


def test_an_epochs_loss_does_not_depend_on_the_batch_size(models, files):
    losses = [
        run(
            models["gpt2"],
            train_args(
                files,
                epochs=1,
                validation_file=files["test"],
                per_device_validation_batch_size=size,
                output_dir=f"out{size}",
            ),
        ).best_loss
        for size in (1, 3, 32)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_train_rows_are_of_the_pass_that_made_the_loss(models, files):
    """The first batch is scored by the untouched model, each batch's loss by its own rows."""
    result = run(models["gpt2"], train_args(files, shuffle_train=False))
    untouched = run(
        models["gpt2"],
        DataTrainingArguments(test_file=[files["train"]], output_dir="before", seed=1),
    ).test_results
    train = result.metrics[result.metrics["dataset_type"] == "train"]
    first = train[(train["epoch"] == 0) & (train["batch_number"] == 0)]
    before = untouched[untouched["example_num"] < 2]
    np.testing.assert_allclose(first["surprisal"], before["surprisal"], atol=1e-4)
    for _, batch in train.groupby(["epoch", "batch_number"]):
        assert batch["loss"].iloc[0] == pytest.approx(
            batch["surprisal"].mean() * math.log(2), rel=1e-4
        )
    second = train[(train["epoch"] == 0) & (train["batch_number"] == 1)]
    later = untouched[untouched["example_num"].isin([2, 3])]
    assert not np.allclose(second["surprisal"], later["surprisal"], atol=1e-4)


def test_train_rows_have_dropout_if_the_model_has(models, files, tmp_path):
    fam = family("gpt2")
    fam.model.config.resid_pdrop = fam.model.config.embd_pdrop = 0.5
    directory = save_family(fam, tmp_path / "dropout")
    args = {"shuffle_train": False, "validation_file": files["train"], "epochs": 1}
    result = run(
        directory,
        train_args(files, train_optimizer_kwargs={"lr": 0.0}, **args),
    )
    metrics = result.metrics
    train = metrics[metrics["dataset_type"] == "train"]["surprisal"].to_numpy()
    validation = metrics[metrics["dataset_type"] == "validation"]["surprisal"].to_numpy()
    assert len(train) == len(validation)
    assert not np.allclose(train, validation, atol=0.01)


def test_validation_rows_are_measured_after_the_epochs_updates(models, files):
    """Testing the model of the last epoch on the validation data gives that epoch's rows."""
    args = train_args(files, test_file=[files["validation"]], epochs=2)
    result = run(models["gpt2"], args)
    assert result.best_epoch == 1
    metrics = result.metrics
    last = metrics[(metrics["dataset_type"] == "validation") & (metrics["epoch"] == 1)]
    np.testing.assert_allclose(
        last["surprisal"].to_numpy(), result.test_results["surprisal"].to_numpy(), atol=1e-4
    )


class Unlearn(OutputsDefaultLoss):
    def __call__(self, outputs, labels):
        return -outputs.loss


def test_the_best_state_is_saved_and_tested(models, files):
    """A model that unlearns is best after its first epoch."""
    losses = {"train": [Unlearn], "validation": [OutputsDefaultLoss]}
    settings = {"train_optimizer_kwargs": {"lr": 1e-2}, "loss_classes": losses}
    args = train_args(files, test_file=[files["validation"]], epochs=4, **settings)
    result = run(models["gpt2"], args)
    validation = result.metrics[result.metrics["dataset_type"] == "validation"]
    best = validation[validation["epoch"] == result.best_epoch]["surprisal"].to_numpy()
    last = validation[validation["epoch"] == 3]["surprisal"].to_numpy()
    assert result.best_epoch == 0
    assert not np.allclose(best, last, atol=0.1)
    np.testing.assert_allclose(result.test_results["surprisal"].to_numpy(), best, atol=1e-4)

    saved = str(result.output_dir / "model")
    again = finetune_lm.run(
        ModelArguments(saved, tokenizer_name=str(result.output_dir / "tokenizer")),
        DataTrainingArguments(test_file=[files["validation"]], output_dir="again"),
    )
    np.testing.assert_allclose(again.test_results["surprisal"].to_numpy(), best, atol=1e-4)


def test_training_order_is_shuffled_anew_each_epoch(models, files):
    def orders(**kwargs):
        metrics = run(models["gpt2"], train_args(files, **kwargs)).metrics
        train = metrics[metrics["dataset_type"] == "train"]
        return [g["example_num"].drop_duplicates().tolist() for _, g in train.groupby("epoch")]

    shuffled = orders(output_dir="a")
    assert all(sorted(order) == list(range(5)) for order in shuffled)
    assert len({tuple(order) for order in shuffled}) > 1
    assert orders(output_dir="b", shuffle_train=False) == [list(range(5))] * 3


def test_eval_before_training(models, files):
    plain = run(models["gpt2"], train_args(files, output_dir="a"))
    result = run(models["gpt2"], train_args(files, output_dir="b", eval_before_training=True))
    before = result.metrics[result.metrics["epoch"] == -1]
    assert set(before["dataset_type"]) == {"validation"}
    untouched = run(
        models["gpt2"], DataTrainingArguments(test_file=[files["validation"]], output_dir="c")
    )
    np.testing.assert_allclose(
        before["surprisal"].to_numpy(), untouched.test_results["surprisal"].to_numpy(), atol=1e-4
    )
    # Nothing else changes, but that what tokens cost before stands beside what they cost now.
    assert result.best_epoch == plain.best_epoch
    after = result.metrics[result.metrics["epoch"] >= 0].reset_index(drop=True)
    after = after.drop(columns="baseline_surprisal")
    pd.testing.assert_frame_equal(after, plain.metrics)


def test_patience_and_min_epochs(models, files):
    args = {
        "epochs": 50,
        "train_optimizer_kwargs": {"lr": 0.5},
        "save_best_model_state_to_disk": False,
    }
    result = run(models["gpt2"], train_args(files, patience=2, **args))
    stopped = result.metrics["epoch"].max()
    assert stopped < 49
    assert stopped == result.best_epoch + 2
    assert not (result.output_dir / "model").exists()
    longer = run(
        models["gpt2"], train_args(files, patience=2, min_epochs=12, output_dir="b", **args)
    )
    assert longer.metrics["epoch"].max() >= 11


def test_several_losses(models, files):
    args = train_args(
        files,
        loss_classes={
            "train": [OutputsDefaultLoss, TimesTwo],
            "validation": [OutputsDefaultLoss],
        },
        loss_classes_kwargs={"train": {"TimesTwo": {"factor": 3.0}}, "validation": {}},
    )
    assert args.train_TimesTwo_factor == 3.0
    result = run(models["gpt2"], args)
    train = result.metrics[result.metrics["dataset_type"] == "train"]
    validation = result.metrics[result.metrics["dataset_type"] == "validation"]
    np.testing.assert_allclose(train["TimesTwo"], 3 * train["OutputsDefaultLoss"], rtol=1e-5)
    np.testing.assert_allclose(train["loss"], 4 * train["OutputsDefaultLoss"], rtol=1e-5)
    assert validation["TimesTwo"].isna().all()
    np.testing.assert_allclose(validation["loss"], validation["OutputsDefaultLoss"])


CALLS: list = []


class Watcher:
    def __init__(self, model, tokenizer, name):
        self.model, self.name = model, name

    def __call__(self, epoch, batch):
        parameter = next(self.model.parameters())
        CALLS.append((epoch, batch, parameter.grad is not None, parameter.detach().clone()))
        if self.name == "freeze":
            for each in self.model.parameters():
                each.grad.zero_()


def test_callbacks_come_between_gradients_and_step(models, files):
    CALLS.clear()
    result = run(
        models["gpt2"],
        train_args(files, epochs=2, validation_file=files["train"]),
        model_pre_train_step_callbacks=[Watcher],
        model_pre_train_step_callbacks_kwargs={"Watcher": {"name": "freeze"}},
    )
    assert [(epoch, batch) for epoch, batch, *_ in CALLS] == [
        (e, b) for e in (0, 1) for b in range(3)
    ]
    assert all(has_gradients for _, _, has_gradients, _ in CALLS)
    # Nothing was learned, since every gradient was zero when the optimizer came.
    assert all(torch.equal(CALLS[0][3], weights) for *_, weights in CALLS)
    saved = transformers.AutoModelForCausalLM.from_pretrained(result.output_dir / "model")
    original = transformers.AutoModelForCausalLM.from_pretrained(models["gpt2"])
    assert all(map(torch.equal, saved.parameters(), original.parameters()))
