"""A training step of a masked LM and of a seq2seq model, everything recorded, against a bare loop.

The sentences are of mixed lengths, of which a bare loop pads each to the longest. It computes
logits for all tokens of a masked LM, where a seventh of them is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import workload
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data_preprocessing import mask_random_spans, mask_random_tokens
from measuring import N_TIMES, Row, Worker, smallest_of

SHAPE = "small"
KINDS = {"mlm": "a masked LM", "seq2seq": "a seq2seq model"}


def run(quick: bool = False) -> list[Row]:
    """A training step of other kinds of model, against a loop that records nothing."""
    del quick
    return [row for kind in KINDS for row in _of_kind(kind)]


def _of_kind(kind: str) -> list[Row]:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker("other_kinds", side, kind=kind, tuned=tuned))
            for tuned in (False, True)
            for side in ("ours", "bare")
        ]
        ours, bare, ours_tuned, bare_tuned = smallest_of(workers, N_TIMES)
    what = f"training step of {KINDS[kind]}, mixed lengths, {SHAPE}"
    return [
        Row(f"{what}, tuning off", "bare loop", f"{ours / bare:.3g}"),
        Row(f"{what}, tuning on", "bare loop", f"{ours_tuned / bare:.3g}"),
        Row(f"{what}, tuning on", "tuned bare", f"{ours_tuned / bare_tuned:.3g}"),
    ]


def _experiment(kind: str) -> workload.Experiment:
    is_masked = kind == "mlm"
    return workload.experiment(
        (workload.masked_model if is_masked else workload.seq2seq_model)(SHAPE),
        workload.built_in_tokenizer(f"tiny-{kind}"),
        workload.mixed(workload.BATCH_SIZE),
        task=kind,
        preprocessing=Preprocessing(mask_random_tokens if is_masked else mask_random_spans),
    )


def ours(kind: str, tuned: bool) -> Callable[[], object]:
    """The step of the training loop."""
    workload.one_thread(tuned=tuned)
    made = _experiment(kind)
    [batch] = made.batches
    return lambda: made.step(batch)


def bare(kind: str, tuned: bool) -> Callable[[], object]:
    """The step of a loop written by hand."""
    workload.one_thread(tuned=tuned)
    made = _experiment(kind)
    [batch] = made.batches
    step = workload.bare_step(made.learner.model, tuned=tuned)
    return lambda: step(batch)
