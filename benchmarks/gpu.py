"""On a CUDA GPU: a training step with every token recorded, and testing, by the clock.

The bare loop and minicons (https://github.com/kanishkamisra/minicons) are what they are on a CPU
in ``step.py`` and ``scoring.py``; the bare loop has the fused AdamW. Where there is no GPU nothing
is measured.
"""

from __future__ import annotations

import importlib.util
import itertools
import time
import warnings
from collections.abc import Callable

import torch

import kl
import scoring
import workload
from measuring import Row

AGAINST_BARE = 1.05
AGAINST_MINICONS = 5.0
OF_KL = 1.2
N_TIMES = 5
N_LINES = {"fillers": 4_096, "mixed lengths": 1_024}


def run(quick: bool = False) -> list[Row]:
    """Steps, waits in them, and testing."""
    if not torch.cuda.is_available():
        return [Row("a training step on a GPU", "bare loop", "not measured: no CUDA GPU")]
    card = torch.cuda.get_device_name()
    rows = []
    for shape in ["small"] if quick else ["gpt2", "small"]:
        for precision in ("fp32", "tf32"):
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            rows.append(_step(shape, f"{shape}, {precision}, {card}"))
        torch.backends.cuda.matmul.allow_tf32 = False
        rows.append(_kl(shape, card))
        rows += [_scoring(shape, texts, card) for texts in N_LINES]
    return [*rows, _waits()]


def _step(shape: str, where: str) -> Row:
    ours = _experiment(shape)
    model = workload.causal_model(shape).cuda()
    step = workload.bare_step(model, tuned=True)
    batches = ours.batches

    def bare() -> None:
        for batch in batches:
            step(batch)

    our_time, bare_time = _least(lambda: ours.steps(batches), bare)
    what = f"training step with every token recorded, {where}"
    return Row.at_most(what, "bare loop", our_time / bare_time, AGAINST_BARE)


def _experiment(shape: str) -> workload.Experiment:
    model = workload.causal_model(shape).cuda()
    return workload.experiment(model, workload.built_in_tokenizer(), workload.taught())


def _kl(shape: str, card: str) -> Row:
    times = _least(*kl.both_sides(shape, torch.device("cuda")))
    what = f"KL term from the cache, {shape}, {card}"
    return Row.at_most(what, kl.SAME_TOKENS, times[0] / times[1], OF_KL)


def _scoring(shape: str, texts: str, card: str) -> Row:
    what = f"tokens scored a second, {texts}, {shape}, {card}"
    if importlib.util.find_spec("minicons") is None:
        return Row(what, "minicons", "not measured: not installed", f"≥ {AGAINST_MINICONS:g}")
    scoring.SHAPE, scoring.N_LINES, scoring.DEVICE = shape, N_LINES, "cuda"
    ours, theirs = scoring.ours(texts, tuned=False), scoring.minicons(texts, tuned=False)
    our_time, their_time = _least(ours, theirs, n_times=3)
    return Row.at_least(what, "minicons", their_time / our_time, AGAINST_MINICONS)


def _waits() -> Row:
    ours = _experiment("small")
    batches = itertools.cycle(ours.batches)
    # The first batch is where the fast way is compared with the plain one.
    for batch in itertools.islice(batches, 3):
        ours.learn(batch)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        ours.learn(next(batches))
    torch.cuda.set_sync_debug_mode("default")
    places = sorted({f"{each.filename}:{each.lineno}" for each in met})
    what = f"waits for the GPU in a training batch ({', '.join(places) or 'none'})"
    return Row.at_most(what, "–", len(met), 0)


def _least(*functions: Callable[[], object], n_times: int = N_TIMES) -> list[float]:
    """The least time of each function by the clock, all of them taken in turn."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(n_times):
        for function, found in zip(functions, times, strict=True):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            function()
            torch.cuda.synchronize()
            found.append(time.perf_counter() - begun)
    return [min(found) for found in times]
