"""Where random numbers come from: all generators, and some that disturb no others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import torch


T = TypeVar("T")

SHUFFLING = 0
LOSSES = 1
PROBES = 2
RANKS = 3
OTHER_MODE = 4


def stream_seed(seed: int, *branch: int) -> int:
    """The seed of a stream of random numbers of its own, spawned from the run's seed.

    Args:
        seed: The run's seed.
        *branch: Which stream, from the trunk to the tip: `SHUFFLING`; `LOSSES`, the number of the
            split, and the loss's place in its list; `PROBES`, and what is drawn for; `RANKS`,
            and which process it is; or `OTHER_MODE`, the number of the type of data, and what of
            them is drawn for.
    """
    import numpy as np

    sequence = np.random.SeedSequence(seed, spawn_key=branch)
    return int(sequence.generate_state(1, np.uint64)[0])


_own_seed: ContextVar[int | None] = ContextVar("own_seed", default=None)


@contextmanager
def own_stream(seed: int) -> Iterator[None]:
    """Give whoever asks for an `own_generator` inside one with this seed."""
    token = _own_seed.set(seed)
    try:
        yield
    finally:
        _own_seed.reset(token)


def own_generator() -> torch.Generator:
    """A generator of one's own: of the stream that `own_stream` gives, or else with the run's seed.

    The run's seed is the one that torch's generator was last given.
    """
    import torch

    seed = _own_seed.get()
    return torch.Generator().manual_seed(torch.initial_seed() if seed is None else seed)


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Draw from this generator where torch's own is meant, and leave that as it was.

    Only the CPU's generator is meant.
    """
    import torch

    state = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(state)


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


_APART = 0x63616C6C
"""Makes of the run's seed another one, so that nothing is drawn here that the run draws too."""


class OwnRandomness:
    """While entered, the generators of Python, numpy and torch go on from where they were left.

    Outside they are as if nothing had been drawn inside. Entering twice is not meant.

    Args:
        seed: What the numbers follow from.

    Example:
        >>> own = OwnRandomness(1)
        >>> random.seed(5)
        >>> with own:
        ...     mine = random.random()
        >>> outside = random.random()
        >>> random.seed(5)
        >>> random.random() == outside
        True
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._inside: dict[str, Any] | None = None
        self._outside: dict[str, Any] = {}

    def __enter__(self) -> Self:
        # Made when first needed: a GPU's generator exists only by then.
        inside = _fresh(self._seed) if self._inside is None else self._inside
        self._outside = generator_states()
        restore_generators(inside)
        return self

    def __exit__(self, *error: object) -> None:
        self._inside = generator_states()
        restore_generators(self._outside)

    def state_dict(self) -> dict[str, Any]:
        """Where the generators were left; empty if they were not used yet."""
        return dict(self._inside or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where other generators were left."""
        self._inside = dict(state) or None


def drawn_apart(seed: int, values: Iterable[T]) -> Iterator[T]:
    """Values that draw from generators of their own: outside it is as if nothing had been drawn.

    Args:
        seed: What the numbers follow from.
        values: They draw when they are asked for the next one.
    """
    left, own = iter(values), OwnRandomness(seed)
    while True:
        with own:
            try:
                value = next(left)
            except StopIteration:
                return
        yield value


def _fresh(seed: int) -> dict[str, Any]:
    """Where generators begin that have a seed, without touching any."""
    import numpy as np
    import torch

    apart = int(np.random.SeedSequence([seed, _APART]).generate_state(1)[0])

    def begin(device: str) -> torch.Tensor:
        return torch.Generator(device=device).manual_seed(apart).get_state()

    name, keys, *rest = np.random.RandomState(apart).get_state()
    fresh: dict[str, Any] = {
        "python": random.Random(apart).getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": begin("cpu"),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        fresh["cuda"] = [begin(f"cuda:{i}") for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        fresh["mps"] = begin("mps")
    return fresh
