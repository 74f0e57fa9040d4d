"""Random numbers that follow from the run's seed without disturbing those of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def own_generator() -> torch.Generator:
    """A generator of one's own, with the seed that torch's generator was last given: the run's."""
    import torch

    return torch.Generator().manual_seed(torch.initial_seed())


@contextmanager
def apart_from_the_run() -> Iterator[None]:
    """Draw from torch's generator as if the run had just begun, and then leave it as it was.

    So what is drawn inside is the same whenever it is drawn, and what the run draws afterwards does
    not depend on whether it was. Only the CPU's generator is meant.
    """
    import torch

    state = torch.get_rng_state()
    torch.default_generator.manual_seed(torch.initial_seed())
    try:
        yield
    finally:
        torch.set_rng_state(state)
