"""A training step of a masked language model with every masked token recorded, against a bare loop.

The sentences are of mixed lengths, of which a bare loop pads each to the longest, and it computes
logits for all tokens where a seventh of them is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

import workload
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data_preprocessing import mask_random_tokens
from measuring import N_TIMES, Row, Worker, smallest_of

SHAPE = "small"


def run(quick: bool = False) -> list[Row]:
    """A training step of a masked language model, against a loop that records nothing."""
    del quick
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("masked_step", kind, tuned=tuned))
            for tuned in (False, True)
            for kind in ("ours", "bare")
        ]
        ours, bare, ours_tuned, bare_tuned = smallest_of(workers, N_TIMES)
    what = f"training step of a masked LM with every masked token recorded, mixed lengths, {SHAPE}"
    return [
        Row(f"{what}, tuning off", "bare loop", f"{ours / bare:.3g}"),
        Row(f"{what}, tuning on", "bare loop", f"{ours_tuned / bare:.3g}"),
        Row(f"{what}, tuning on", "tuned bare", f"{ours_tuned / bare_tuned:.3g}"),
    ]


def _experiment() -> workload.Experiment:
    return workload.experiment(
        workload.masked_model(SHAPE),
        workload.built_in_tokenizer("tiny-mlm"),
        workload.mixed(workload.BATCH_SIZE),
        task="mlm",
        preprocessing=Preprocessing(mask_random_tokens),
    )


def ours(tuned: bool) -> Callable[[], object]:
    """The step of the training loop."""
    workload.one_thread(tuned=tuned)
    made = _experiment()
    [batch] = made.batches
    return lambda: made.step(batch)


def bare(tuned: bool) -> Callable[[], object]:
    """The step of a loop written by hand."""
    workload.one_thread(tuned=tuned)
    made = _experiment()
    [batch] = made.batches
    model = made.learner.model
    optimizer = torch.optim.AdamW(model.parameters(), fused=tuned or None)
    return lambda: workload.bare_step(model, optimizer, batch)
