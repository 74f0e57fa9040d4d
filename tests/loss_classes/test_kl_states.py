"""Which examples go through the untouched model together, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from finetune_lm.loss_classes import _kl_states
from finetune_lm.loss_classes._kl_states import KeptStates
from finetune_lm.ranks import World

N = 12


def dealt(batches, size):
    """Which rank has each example of some batches, by its number."""
    return [(np.array(batch, dtype=np.int64) // 2) % size for batch in batches]


def brute_force(calls, budget, size):
    """For each call the group of each example that it draws, by going through all calls in turn."""
    group, fits, taken = {}, {}, 0
    found = []
    for call, batches in enumerate(calls):
        of_call = {}
        for i, batch in enumerate(batches):
            of_call |= {row: (call, i, row // 2 % size) for row in batch}
        new = sorted((where, row) for row, where in of_call.items() if row not in group)
        for where, row in new:
            group[row] = where
            taken += row + 1
            fits[row] = taken <= budget
        found.append(
            {
                row: sorted(
                    other
                    for other, where in (group if fits[row] else of_call).items()
                    if fits[other] == fits[row]
                    and where == (group[row] if fits[row] else of_call[row])
                )
                for row in of_call
            }
        )
    return found


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("budget", [0, 5, 30, 1000])
def test_groups_follow_from_the_draws_alone(monkeypatch, budget, size):
    monkeypatch.setattr(World, "size", size)
    assert _kl_states.world().size == size
    generator = np.random.default_rng(1)
    draws = [generator.permutation(N)[:5].tolist() for _ in range(6)]
    calls = [[draw[:3], draw[3:]] for draw in draws]
    expected = brute_force(calls, budget, size)
    sizes = np.arange(N) + 1  # an example takes one more than its number
    kept, states = KeptStates(sizes, budget), []
    for call, batches in enumerate(calls):
        states.append(kept.state_dict())
        kept.drawn(call, batches, dealt(batches, size))
        assert {row: kept.group_of(row).tolist() for row in expected[call]} == expected[call]
    for begin in range(len(calls)):
        # Both one that has lost everything and one that knows what will be.
        for again in (KeptStates(sizes, budget), kept):
            again.load_state_dict(states[begin])
            for call in range(begin, len(calls)):
                again.drawn(call, calls[call], dealt(calls[call], size))
                found = {row: again.group_of(row).tolist() for row in expected[call]}
                assert found == expected[call]


def test_what_fits_is_kept_and_the_rest_until_the_next_group():
    kept = KeptStates(np.array([1, 1, 1, 1]), 2)
    kept.drawn(0, [[3, 1, 2]], dealt([[3, 1, 2]], 1))
    assert [kept.group_of(row).tolist() for row in (1, 2, 3)] == [[1, 2], [1, 2], [3]]
    kept.put({1: torch.ones(1), 2: torch.ones(1)})
    kept.put({3: torch.zeros(1)})
    assert [kept.get(row) is None for row in range(4)] == [True, False, False, False]
    kept.drawn(1, [[0, 1]], dealt([[0, 1]], 1))
    assert [kept.get(row) is None for row in range(4)] == [True, False, False, True]


def test_an_example_that_was_not_drawn_is_asked_for_alone():
    assert KeptStates(np.array([1, 1]), 2).group_of(1).tolist() == [1]
