from __future__ import annotations

import random

import numpy as np
import torch

from finetune_lm.evaluation.passes import EpochLosses
from finetune_lm.randomness import generator_states, restore_generators
from finetune_lm.training.progress import Progress


def test_the_order_of_an_epoch_is_drawn_once_and_can_be_asked_for_again():
    progress = Progress(seed=3)
    orders = []
    for epoch in range(3):
        orders.append(progress.order(10).tolist())
        taken = progress.state_dict()  # in the middle of the epoch
        again = Progress(seed=99)
        again.load_state_dict(taken)
        assert again.epoch == epoch
        assert again.order(10).tolist() == orders[-1]
        again.begin_epoch(epoch + 1)
        progress.begin_epoch(epoch + 1)
        assert again.state_dict() == taken | {
            "epoch": epoch + 1,
            "generator": again.state_dict()["generator"],
        }
    # The first stream that is spawned from the run's seed.
    [stream] = np.random.SeedSequence(3).spawn(1)
    seed = int(stream.generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(seed)
    assert orders == [torch.randperm(10, generator=generator).tolist() for _ in range(3)]


def losses_left_out(n):
    losses = EpochLosses()
    losses.n_not_finite = n
    return losses


def test_counts_are_added_up_over_epochs():
    progress = Progress(seed=0)
    progress.training.losses[None] = losses_left_out(2)
    progress.validation.losses[None] = losses_left_out(3)
    assert (progress.n_skipped, progress.n_unjudged) == (2, 1)
    progress.begin_epoch(1)
    progress.training.losses[None] = losses_left_out(1)
    again = Progress(seed=0)
    again.load_state_dict(progress.state_dict())
    assert (again.n_skipped, again.n_unjudged) == (3, 1)
    again.begin_epoch(2)
    assert (again.n_skipped, again.n_unjudged) == (3, 1)


def test_it_tells_people_where_it_is():
    progress = Progress(seed=0, first_epoch=4)
    assert str(progress) == "epoch 4"
    progress.training.n_batches = 2
    assert str(progress) == "epoch 4, train batch 2"
    progress.validation.n_batches = 1
    assert str(progress) == "epoch 4, validation batch 1"


def draw():
    return [
        random.random(),
        random.gauss(0, 1),
        *np.random.rand(2).tolist(),
        float(np.random.randn()),
        *torch.rand(3).tolist(),
        *torch.randn(2).tolist(),
    ]


def test_all_generators_go_on_where_they_were():
    draw()  # so that each is in the middle of something
    states = generator_states()
    expected = [draw() for _ in range(3)]
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        restore_generators(states)
        assert [draw() for _ in range(3)] == expected


def test_generators_of_a_device_that_is_gone_are_left_out():
    states = generator_states()
    expected = draw()
    restore_generators({**states, "cuda": [torch.zeros(16, dtype=torch.uint8)], "mps": None})
    assert draw() == expected
