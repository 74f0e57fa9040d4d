"""What callbacks draw at random is their own affair."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune_lm
from callback_runs import arguments, heard
from finetune_lm import ModelArguments
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.model_modifiers import ModelCallback
from finetune_lm.randomness import OwnRandomness


class Gambler(ModelCallback):
    """Draws from every generator, whenever it can."""

    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self(None, None)

    def __call__(self, epoch, batch):
        heard.append((random.random(), float(np.random.normal()), float(torch.rand(()))))

    def after_step(self, epoch, batch):
        self(epoch, batch)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_what_callbacks_draw_changes_nothing_else(models, files, name):
    """Dropout, and masks that are drawn anew for each batch."""
    settings = {}
    if name == "bert":
        settings = {
            "data_preprocessing_fn": dict.fromkeys(
                ("train", "validation", "test"), mask_random_tokens
            ),
            "data_preprocessing_fn_strategy": dict.fromkeys(("train", "validation"), "per_batch"),
        }
    tables, drawn = [], []
    for directory, hooks in (("a", ()), ("b", HOOKS), ("c", HOOKS)):
        heard.clear()
        args = ModelArguments(models[name], model_callbacks=dict.fromkeys(hooks, Gambler))
        finetune_lm.run(args, arguments(files, output_dir=directory, **settings))
        tables.append(Path(directory, "metrics.csv.gz").read_bytes())
        drawn.append(tuple(heard))
    assert tables[0] == tables[1] == tables[2]
    assert drawn[1] == drawn[2]
    assert len({numbers[i] for numbers in drawn[1] for i in range(3)}) == 3 * len(drawn[1])


def test_what_callbacks_draw_follows_from_the_seed(models, files):
    drawn = []
    for seed in (1, 2):
        heard.clear()
        args = ModelArguments(models["gpt2"], model_callbacks={"end_epoch": Gambler})
        finetune_lm.run(args, arguments(files, epochs=1, seed=seed, output_dir=str(seed)))
        drawn.append(tuple(heard))
    assert not set(drawn[0]) & set(drawn[1])


def test_generators_go_on_where_they_were_left():
    def draw():
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    own, again = OwnRandomness(3), OwnRandomness(4)
    assert own.state_dict() == {}
    with own:
        first = draw()
    again.load_state_dict(own.state_dict())
    outside = draw()
    with own:
        second = draw()
    with again:
        assert draw() == second
    assert len({*first, *second, *outside}) == 9
    fresh = OwnRandomness(3)
    fresh.load_state_dict({})
    with fresh:
        assert draw() == first


def test_an_error_leaves_the_runs_generators_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    def fail():
        with OwnRandomness(3):
            torch.rand(5)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert torch.equal(torch.rand(3), expected)
