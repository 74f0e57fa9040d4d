"""Streams of random numbers, spawned from one seed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from finetune_lm.randomness import LOSSES, SHUFFLING, drawing_from, stream_seed


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_streams_are_those_that_numpy_spawns(seed):
    shuffling, losses = np.random.SeedSequence(seed).spawn(2)
    assert stream_seed(seed, SHUFFLING) == int(shuffling.generate_state(1, np.uint64)[0])
    for split, of_split in enumerate(losses.spawn(2)):
        for place, loss in enumerate(of_split.spawn(3)):
            expected = int(loss.generate_state(1, np.uint64)[0])
            assert stream_seed(seed, LOSSES, split, place) == expected


def test_no_two_streams_are_the_same():
    branches = [(SHUFFLING,), *((LOSSES, s, p) for s in range(2) for p in range(5))]
    seeds = {stream_seed(seed, *branch) for seed, branch in itertools.product(range(20), branches)}
    assert len(seeds) == 20 * len(branches)
    for seed in seeds:
        torch.Generator().manual_seed(seed)  # each is one that torch takes


def test_drawing_from_a_generator_leaves_torchs_own_as_it_was():
    generator = torch.Generator().manual_seed(3)
    before = torch.get_rng_state()
    with drawing_from(generator):
        drawn = torch.rand(2)
    with drawing_from(generator):
        drawn = torch.cat([drawn, torch.rand(2)])
    assert drawn.equal(torch.rand(4, generator=torch.Generator().manual_seed(3)))
    assert torch.get_rng_state().equal(before)
