from __future__ import annotations

import numpy as np
import pytest
import torch

from families import family
from finetune_lm.evaluation.passes import Pass
from finetune_lm.evaluation.splits import Split
from finetune_lm.scoring.forward import Forward
from finetune_lm.scoring.scorer import Scorer
from helpers import dataset, examples, row_maker

N = 11
TEXTS = [f"The man saw {n} dogs." for n in range(N)]


def drop_some(inputs, tokenizer):
    """Leaves nothing of the texts about 4 to 7 dogs, and two of each other."""
    texts = tokenizer.batch_decode(inputs["input_ids"])
    kept = [i for i, text in enumerate(texts) if not any(f" {n} " in text for n in (4, 5, 6, 7))]
    repeats = [2 if i in kept else 0 for i in range(len(texts))]
    made = {
        key: tensor.repeat_interleave(torch.tensor(repeats), dim=0)
        for key, tensor in inputs.items()
    }
    return {**made, "expanded_lengths": torch.tensor(repeats)}


def split_of(**kwargs):
    fam = family("gpt2")
    data = dataset(fam, examples(TEXTS), **kwargs)
    forward = Forward(Scorer(fam.model, data.task, fast=False), data, 2)
    return Split("train", data, 2, forward, row_maker(fam, data))


def seen(split, progress, order=None, stop_after=None):
    found = []
    order = np.arange(len(split.dataset)) if order is None else order
    for number, _, batch in progress.batches(lambda _: split, order, 0):
        found.append((number, batch.example.tolist()))
        if number == stop_after:
            break
    return found


@pytest.mark.parametrize("stop_after", range(6))
@pytest.mark.parametrize("order", [None, np.random.default_rng(0).permutation(N)])
def test_a_pass_is_taken_up_after_any_batch(stop_after, order):
    split = split_of()
    whole = seen(split, Pass(), order)
    in_order = list(range(N)) if order is None else order.tolist()
    assert [e for _, batch in whole for e in batch] == in_order
    first, second = Pass(), Pass()
    begun = seen(split, first, order, stop_after)
    second.load_state_dict(first.state_dict())
    assert begun + seen(split, second, order) == whole
    assert second.n_batches == len(whole)
    assert seen(split, second, order) == []  # nothing is left


@pytest.mark.parametrize("stop_after", range(4))
def test_batches_of_which_preprocessing_leaves_nothing(stop_after):
    split = split_of(function=drop_some, strategy="per_batch")
    whole = seen(split, Pass())
    assert whole == [
        (0, [0, 0, 1, 1]), (1, [2, 2, 3, 3]), (2, [8, 8, 9, 9]), (3, [10, 10]),
    ]  # fmt: skip
    first, second = Pass(), Pass()
    begun = seen(split, first, stop_after=stop_after)
    second.load_state_dict(first.state_dict())
    assert begun + seen(split, second) == whole


def test_means_are_taken_up_too():
    split = split_of()
    first, second, whole = Pass(), Pass(), Pass()
    batches = [({"loss": 1.0}, 3), ({"loss": 0.1}, 2), ({"loss": 4.0}, 5)]
    for losses, n_labels in batches:
        whole.losses_of(split).add(losses, n_labels)
    first.losses_of(split).add(*batches[0])
    second.load_state_dict(first.state_dict())
    for each in batches[1:]:
        second.losses_of(split).add(*each)
    assert second.losses_of(split).means("x") == whole.losses_of(split).means("x")
    assert Pass().losses_of(split).is_empty
    assert not second.losses_of(split).is_empty
