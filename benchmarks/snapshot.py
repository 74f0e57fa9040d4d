"""Keeping the best weights, against a copy of all of them."""

from __future__ import annotations

import copy
import os
from functools import partial
from typing import Any

import psutil

import workload
from finetune_lm.training.best_state import BestState
from measuring import Row, smallest

TARGET = 1 / 3
GROWTH_MB = 1.0


def run(quick: bool = False) -> list[Row]:
    """Keeping the best weights, against a deep copy of the model's state."""
    workload.one_thread()
    rows = []
    for shape in ["small"] if quick else ["small", "gpt2"]:
        model = workload.causal_model(shape)
        best = BestState(model)
        ours, copying = smallest(best.keep, partial(copied_state, model))
        before = _resident_mb()
        for _ in range(10):
            best.keep()
        what = f"keeping the best weights, {shape}"
        rows += [
            Row.at_most(what, "deepcopy(state_dict)", ours / copying, round(TARGET, 3)),
            Row.at_most(f"memory after ten more, {shape}", "–", _grown(before), GROWTH_MB, " MB"),
        ]
    return rows


def copied_state(model: Any) -> Any:
    """What people keep."""
    return copy.deepcopy(model.state_dict())


def _grown(before: float) -> float:
    return max(_resident_mb() - before, 0.0)


def _resident_mb() -> float:
    return float(psutil.Process(os.getpid()).memory_info().rss / 2**20)
