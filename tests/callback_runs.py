"""Runs with callbacks that say when they were called."""

from __future__ import annotations

from finetune_lm.model_modifiers import ModelCallback
from short_runs import train_args

heard: list = []
"""What callbacks of a test have to tell; empty at the beginning of each."""


def arguments(files, **kwargs):
    return train_args(files, **{"epochs": 2, **kwargs})


class Recorder(ModelCallback):
    def __init__(self, model, tokenizer, at="step"):
        super().__init__(model, tokenizer)
        self.at = at

    def __call__(self, epoch, batch):
        heard.append((self.at, epoch, batch))

    def after_step(self, epoch, batch):
        heard.append((f"{self.at}: after", epoch, batch))
