"""A training step with every token recorded, against loops that record nothing.

The bare loop is ``model(**batch).loss``, padded batches and AdamW, all at their defaults. Tuning is
what a run sets for its process where it can: the allocator and matrix products. The tuned bare loop
has these settings, too, and the fused AdamW that a run takes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

import workload
from measuring import N_TIMES, Row, Worker, smallest_of

UNTUNED = {"small": 0.55, "gpt2": 0.65}
TUNED = {"small": 0.33, "gpt2": 0.40}
AGAINST_TUNED = 0.85
LOOP_OVERHEAD = 0.9
SHARE_OF_PEAK = 60
_MATMUL = 2048


def run(quick: bool = False) -> list[Row]:
    """A training step with every token recorded, against loops that record nothing."""
    rows = []
    for shape in ["small"] if quick else ["small", "gpt2"]:
        rows += _of_shape(shape)
    return rows + _loop_overhead()


def _of_shape(shape: str) -> list[Row]:
    kinds: list[tuple[str, dict[str, bool]]] = [
        ("ours", {"tuned": False, "fused": False}),
        ("ours", {"tuned": False}),
        ("ours", {"tuned": True}),
        ("bare", {"tuned": False}),
        ("bare", {"tuned": True}),
    ]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("step", kind, shape=shape, **settings))
            for kind, settings in kinds
        ]
        peak = [
            stack.enter_context(Worker("step", "matmul", tuned=tuned)) for tuned in (False, True)
        ]
        times = smallest_of([*workers, *peak], N_TIMES)
    ours_default, ours, ours_tuned, bare, bare_tuned = times[: len(kinds)]
    what = f"training step with every token recorded, {shape}"
    rows = [
        Row.at_most(f"{what}, tuning off", "bare loop", ours / bare, UNTUNED[shape]),
        Row(f"{what}, tuning off, AdamW not fused", "bare loop", f"{ours_default / bare:.3g}"),
        Row.at_most(f"{what}, tuning on", "bare loop", ours_tuned / bare, TUNED[shape]),
        Row.at_most(f"{what}, tuning on", "tuned bare", ours_tuned / bare_tuned, AGAINST_TUNED),
    ]
    if shape == "gpt2":
        best = 2 * _MATMUL**3 / min(times[len(kinds) :])
        share = 100 * _flop(shape) / ours_tuned / best
        what = "model FLOP/s of real tokens, gpt2 step"
        rows.append(Row.at_least(what, "the best matmul", share, SHARE_OF_PEAK, " %"))
    return rows


def _loop_overhead() -> list[Row]:
    small = {"shape": "tiny", "vocabulary": workload.SMALL_VOCABULARY}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker)
            for worker in (
                Worker("step", "ours", tuned=True, **small),
                Worker("step", "ours", tuned=False, **small),
                Worker("step", "bare", tuned=False, **small),
                Worker("step", "trainer", **small),
            )
        ]
        tuned, untuned, bare, trainer = smallest_of(workers, 4 * N_TIMES)
    what = f"training step with every token recorded, tiny, vocabulary {small['vocabulary']}"
    return [
        Row.at_most(f"{what}, tuning on", "bare loop", tuned / bare, LOOP_OVERHEAD),
        Row.at_most(f"{what}, tuning on", "Trainer", tuned / trainer, 1.0),
        Row(f"{what}, tuning off", "bare loop", f"{untuned / bare:.3g}"),
        Row(f"{what}, tuning off", "Trainer", f"{untuned / trainer:.3g}"),
    ]


def _experiment(shape: str, vocabulary: int, fused: bool = True) -> workload.Experiment:
    model = workload.causal_model(shape, vocabulary)
    is_small = vocabulary == workload.SMALL_VOCABULARY
    tokenizer = workload.small_tokenizer() if is_small else workload.built_in_tokenizer()
    return workload.experiment(model, tokenizer, workload.taught(), fused=fused)


def ours(
    shape: str, tuned: bool = False, vocabulary: int = workload.VOCABULARY, fused: bool = True
) -> Callable[[], object]:
    """The step of the training loop."""
    workload.one_thread(tuned=tuned)
    made = _experiment(shape, vocabulary, fused)
    batches = made.batches[: _n_batches(vocabulary)]
    return lambda: made.steps(batches)


def bare(
    shape: str, tuned: bool = False, vocabulary: int = workload.VOCABULARY
) -> Callable[[], object]:
    """The step of a loop written by hand."""
    workload.one_thread(tuned=tuned)
    made = _experiment(shape, vocabulary)
    step = workload.bare_step(made.learner.model, tuned=tuned)
    batches = itertools.cycle(made.batches[: _n_batches(vocabulary)])
    return _several(lambda: step(next(batches)), vocabulary)


def trainer(shape: str, vocabulary: int) -> Callable[[], float]:
    """A step of transformers' Trainer, as it comes."""
    import transformers

    workload.one_thread()
    made = _experiment(shape, vocabulary)
    tokenizer = workload.small_tokenizer()
    rows = [{"input_ids": ids} for ids in made.training.dataset.input_ids.tolist()]

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        """Takes the time at the end of each step."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.ends.append(time.process_time())

    def seconds() -> float:
        """Of as many steps as the others do, the first left out, in which all is set up."""
        clock = Clock()
        n = _n_batches(vocabulary)
        made_trainer = transformers.Trainer(
            made.learner.model,
            workload.quiet_training(workload.scratch_directory(), max_steps=n + 1),
            transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
            rows,
            callbacks=[clock],
        )
        made_trainer.remove_callback(transformers.PrinterCallback)
        made_trainer.train()
        return clock.ends[-1] - clock.ends[0]

    return seconds


def matmul(tuned: bool = False) -> Callable[[], object]:
    """A large product of matrices, the fastest that a processor computes."""
    workload.one_thread(tuned=tuned)
    left, right = torch.rand(2, _MATMUL, _MATMUL)
    return lambda: left @ right


def _n_batches(vocabulary: int) -> int:
    """One batch of a large model, all of a small one, whose time is otherwise too short."""
    return 5 if vocabulary == workload.SMALL_VOCABULARY else 1


def _several(step: Callable[[], object], vocabulary: int) -> Callable[[], object]:
    n = _n_batches(vocabulary)

    def steps() -> None:
        for _ in range(n):
            step()

    return steps


def _flop(shape: str) -> float:
    """What the products of the first batch's step take: 6 for each weight and real token."""
    made = workload.dataset(workload.taught(), workload.built_in_tokenizer())
    batch = next(made.batches(workload.BATCH_SIZE))
    n_tokens = int(batch.inputs["attention_mask"].sum())
    n_targets = n_tokens - len(batch)
    layers, width = workload.SHAPES[shape]
    return 6.0 * (12 * layers * width**2 * n_tokens + workload.VOCABULARY * width * n_targets)
