"""Whole runs the fast way and the plain way: the same tables, up to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from helpers import assert_same_numbers

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
KINDS = {
    "tiny-lm": ("active.txt.gz", "passive.txt.gz", "test.txt.gz"),
    "tiny-mlm": tuple(f"mlm_{part}.json.gz" for part in ("train", "validation", "test")),
    "tiny-seq2seq": tuple(f"seq2seq_{part}.json.gz" for part in ("train", "validation", "test")),
}
WITHOUT_DROPOUT = {
    "tiny-lm": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "tiny-mlm": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "tiny-seq2seq": {"dropout_rate": 0.0},
}

LOSSES = ["loss", "OutputsDefaultLoss", "KLBaselineLoss"]


@pytest.mark.parametrize("model", KINDS)
def test_a_run_of_each_kind_comes_to_the_same_both_ways(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, validation, test = (str(DATA / f"flomped_{name}") for name in KINDS[model])

    def run(fast):
        return finetune_lm.run(
            ModelArguments(model, config_kwargs=WITHOUT_DROPOUT[model]),
            DataTrainingArguments(
                train_file=train,
                validation_file=validation,
                test_file=[test],
                max_train_samples=16,
                max_validation_samples=10,
                max_test_samples=20,
                per_device_train_batch_size=4,
                per_device_validation_batch_size=4,
                per_device_test_batch_size=3,
                epochs=2,
                # Adam's steps are as large for a gradient that is nothing but rounding.
                train_optimizer=torch.optim.SGD,
                train_optimizer_kwargs={"lr": 1e-2},
                save_best_model_state_to_disk=False,
                fast=fast,
                seed=1,
                output_dir="fast" if fast else "plain",
            ),
        )

    plain, fast = run(False), run(True)
    assert fast.best_loss == pytest.approx(plain.best_loss, rel=1e-4)
    losses = ["loss", "OutputsDefaultLoss"]
    for name in ("metrics", "test_results"):
        tables = [getattr(result, name) for result in (plain, fast)]
        if name == "metrics":
            for column in losses:
                differences = (tables[0][column] - tables[1][column]).abs()
                assert differences.max() < 1e-4
            tables = [table.drop(columns=losses) for table in tables]
        # Steps were taken by rounded gradients, so what is asked here is a little less exact.
        assert_same_numbers(*tables, within=1e-3)


def test_first_updates_by_a_kl_term_are_the_same_both_ways(tmp_path, monkeypatch):
    """At equal weights its gradient is 0; what rounding makes of that, Adam would scale up."""
    model = "tiny-lm"
    monkeypatch.chdir(tmp_path)
    train, validation, _ = (str(DATA / f"flomped_{name}") for name in KINDS[model])
    sentences = str(DATA / "sentences.txt.gz")

    def run(fast):
        return finetune_lm.run(
            ModelArguments(model, config_kwargs=WITHOUT_DROPOUT[model]),
            DataTrainingArguments(
                train_file=train,
                validation_file=validation,
                max_train_samples=16,
                max_validation_samples=10,
                per_device_train_batch_size=8,
                epochs=1,
                train_optimizer=torch.optim.AdamW,
                train_optimizer_kwargs={"lr": 2e-3},
                loss_classes={"train": [OutputsDefaultLoss, KLBaselineLoss]},
                loss_classes_kwargs={"train": {"KLBaselineLoss": {"dataset": sentences}}},
                save_best_model_state_to_disk=False,
                fast=fast,
                seed=1,
                output_dir="fast" if fast else "plain",
            ),
        ).metrics

    assert_same_numbers(run(False).drop(columns=LOSSES), run(True).drop(columns=LOSSES))
