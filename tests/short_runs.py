"""Small random models, data files and arguments for whole runs from Python."""

from __future__ import annotations

import pytest
import torch

import finetune_lm
from families import family
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import OutputsDefaultLoss
from helpers import save_without_dropout, write_lines
from studies import TRAIN, VALIDATION


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Directories with a small model of each kind; without dropout, so that runs can be redone."""
    return {
        name: save_without_dropout(family(name), tmp_path_factory.mktemp(name))
        for name in ("gpt2", "bert", "t5", "roberta")
    }


@pytest.fixture
def files(tmp_path):
    directory = tmp_path / "files"
    directory.mkdir()
    metadata = [{"item": f"i{i}", "kind": "active"} for i in range(len(TRAIN))]
    return {
        "train": write_lines(directory / "teach.txt.gz", TRAIN, metadata),
        "validation": write_lines(directory / "check.txt.gz", VALIDATION),
        "test": write_lines(directory / "probe.txt.gz", TRAIN + VALIDATION),
    }


def train_args(files, **kwargs):
    settings = {
        "train_file": files["train"],
        "validation_file": files["validation"],
        "epochs": 3,
        "per_device_train_batch_size": 2,
        "train_optimizer_kwargs": {"lr": 1e-3},
        "seed": 5,
        "output_dir": "out",
        **kwargs,
    }
    return DataTrainingArguments(**settings)


def run(model, args, **kwargs):
    return finetune_lm.run(ModelArguments(model, **kwargs), args)


class TimesTwo(OutputsDefaultLoss):
    def __init__(self, model, tokenizer, factor=2.0):
        self.factor = factor

    def __call__(self, outputs, labels):
        return outputs.loss * self.factor


def scale_embeddings(model, tokenizer, amount=1.0):
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(amount)
