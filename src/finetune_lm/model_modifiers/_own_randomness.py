"""Random numbers of one's own, beside those of the run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from finetune_lm.randomness import generator_states, restore_generators

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = generator_states()
        restore_generators(self._outside)

    def state_dict(self) -> dict[str, Any]:
        """Where the generators were left; empty if they were not used yet."""
        return dict(self._inside or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where other generators were left."""
        self._inside = dict(state) or None


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
