"""Losses that change what they are given in place change nothing in the tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import OutputsDefaultLoss

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
FILES = {
    "tiny-lm": ("active.txt.gz", "passive.txt.gz"),
    "tiny-mlm": ("mlm_train.json.gz", "mlm_validation.json.gz"),
    "tiny-seq2seq": ("seq2seq_train.json.gz", "seq2seq_validation.json.gz"),
}


class Reads(OutputsDefaultLoss):
    """Needs the logits, and leaves them alone."""

    def __call__(self, outputs, labels):
        assert outputs.logits is not None
        return outputs.loss


def spoiled_by(change):
    class Spoils(Reads):
        def __call__(self, outputs, labels):
            loss = super().__call__(outputs, labels)
            change(outputs.logits.detach(), labels)
            return loss

    return Spoils


SPOILS = {
    "zero_": lambda logits, labels: logits.zero_(),
    "/=": lambda logits, labels: logits.__itruediv__(3.0),
    "labels": lambda logits, labels: labels.fill_(0),
}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return {model: run(tmp_path_factory.mktemp(model), model, Reads) for model in FILES}


def run(directory, model, loss):
    train, validation = (str(DATA / f"flomped_{name}") for name in FILES[model])
    return finetune_lm.run(
        ModelArguments(model),
        DataTrainingArguments(
            train_file=train,
            validation_file=validation,
            max_train_samples=6,
            max_validation_samples=4,
            per_device_train_batch_size=3,
            per_device_validation_batch_size=3,
            epochs=2,
            train_optimizer_kwargs={"lr": 1e-3},
            loss_classes={"train": [loss], "validation": [loss]},
            save_best_model_state_to_disk=False,
            seed=1,
            output_dir=str(directory / "out"),
        ),
    ).metrics


@pytest.mark.parametrize("model", FILES)
@pytest.mark.parametrize("how", SPOILS)
def test_the_table_is_that_of_a_loss_that_changes_nothing(right, tmp_path, model, how):
    found = run(tmp_path, model, spoiled_by(SPOILS[how]))
    found = found.rename(columns={"Spoils": "Reads"})
    pd.testing.assert_frame_equal(found, right[model])
