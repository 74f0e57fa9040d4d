"""Where random numbers come from: all generators, and some that disturb no others."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def generator_states() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and torch, in types that can be kept.

    A GPU has generators of its own, which are there as soon as it is used.
    """
    import numpy as np
    import torch

    name, keys, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """Put the generators into the states that `generator_states` gave.

    Those of a device that is not there now are left out.
    """
    import numpy as np
    import torch

    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        for index, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
