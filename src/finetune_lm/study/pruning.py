"""What a pruned trial comes out as."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optuna import samplers
from optuna.pruners import BasePruner, WilcoxonPruner

# They look at completed trials alone (optuna 5.0.0: samplers/_gp/sampler.py, sample_relative;
# samplers/_ga/_base.py, get_population).
_LEARN_FROM_COMPLETED_ONLY = (
    samplers.GPSampler,
    samplers.NSGAIISampler,
    samplers.NSGAIIISampler,
)


def counts_as_completed(sampler: samplers.BaseSampler, pruner: BasePruner) -> bool:
    """Whether a trial that is pruned returns the best that it had come to, as a completed one does.

    It does with a `WilcoxonPruner`, whose documentation asks for it, alone or wrapped in another.
    It also does with a sampler that learns nothing from pruned trials: what the trial has shown
    would be lost, and the sampler would propose its neighbours again. These are `GPSampler`,
    `NSGAIISampler`, `NSGAIIISampler`, and `CmaEsSampler` unless it is made with
    ``consider_pruned_trials``. All others, such as `TPESampler`, learn from trials that are marked
    as pruned, or from none.
    """
    if any(isinstance(each, WilcoxonPruner) for each in _chain(pruner, "_wrapped_pruner")):
        return True
    for each in _chain(sampler, "_base_sampler"):
        if isinstance(each, samplers.CmaEsSampler):
            return not each._consider_pruned_trials
        if isinstance(each, _LEARN_FROM_COMPLETED_ONLY):
            return True
    return False


def _chain(outermost: Any, attribute: str) -> Iterator[Any]:
    """An object, what it wraps, what that wraps, and so on."""
    each = outermost
    while each is not None:
        yield each
        each = getattr(each, attribute, None)
