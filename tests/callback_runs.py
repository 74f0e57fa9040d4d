"""Runs with callbacks that say when they were called."""

from __future__ import annotations

from finetune_lm import DataTrainingArguments
from finetune_lm.model_modifiers import ModelCallback

heard: list = []
"""What callbacks of a test have to tell; empty at the beginning of each."""


def arguments(files, **kwargs):
    settings = {
        "train_file": files["train"],
        "validation_file": files["validation"],
        "epochs": 2,
        "per_device_train_batch_size": 2,
        "train_optimizer_kwargs": {"lr": 1e-3},
        "seed": 5,
        "output_dir": "out",
        **kwargs,
    }
    return DataTrainingArguments(**settings)


class Recorder(ModelCallback):
    def __init__(self, model, tokenizer, at="step"):
        super().__init__(model, tokenizer)
        self.at = at

    def __call__(self, epoch, batch):
        heard.append((self.at, epoch, batch))

    def after_step(self, epoch, batch):
        heard.append((f"{self.at}: after", epoch, batch))
