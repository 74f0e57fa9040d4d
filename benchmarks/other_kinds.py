"""A training step of a masked LM and of a seq2seq model, everything recorded, against a bare loop.

The sentences are of mixed lengths, of which a bare loop pads each to the longest. It computes
logits for all tokens of a masked LM, where a seventh of them is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch

import workload
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data_preprocessing import mask_random_spans, mask_random_tokens
from finetune_lm.models.tasks import TASKS
from measuring import N_TIMES, Row, Worker, smallest_of

SHAPE = "small"
SEQ2SEQ_AGAINST_TUNED = 0.5
# Products with so many of a layer's outputs at a time take the least time.
_ROWS = 1024
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
        floor = stack.enter_context(Worker("other_kinds", "products", kind=kind))
        ours, bare, ours_tuned, bare_tuned, least = smallest_of([*workers, floor], N_TIMES)
    what = f"training step of {KINDS[kind]}, mixed lengths, {SHAPE}"
    tuned_row = f"{what}, tuning on", "tuned bare", ours_tuned / bare_tuned
    return [
        Row(f"{what}, tuning off", "bare loop", f"{ours / bare:.3g}"),
        Row(f"{what}, tuning on", "bare loop", f"{ours_tuned / bare:.3g}"),
        Row.at_most(*tuned_row, SEQ2SEQ_AGAINST_TUNED)
        if kind == "seq2seq"
        else Row(*tuned_row[:2], f"{tuned_row[2]:.3g}"),
        Row(f"{what}, its products and update alone", "tuned bare", f"{least / bare_tuned:.3g}"),
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


def products(kind: str) -> Callable[[], object]:
    """The products of matrices of a step's real tokens, and AdamW's update."""
    workload.one_thread(tuned=True)
    made = _experiment(kind)
    [batch] = made.batches
    model = made.learner.model
    head = model.get_output_embeddings()
    made.step(batch)
    asked, _ = TASKS[kind].predictions(batch.inputs["labels"])
    multiplied = [(head.weight.data, len(asked))]
    handles = [
        module.register_forward_hook(
            lambda layer, args, _: multiplied.append((layer.weight.data, args[0][..., 0].numel()))
        )
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    made.step(batch)
    for handle in handles:
        handle.remove()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def once() -> None:
        for weight, n in multiplied:
            inputs = torch.empty(n, weight.shape[1]).normal_()
            for part in weight.split(_ROWS):
                outputs = inputs @ part.T
                torch.mm(outputs, part)
                torch.mm(outputs.T, inputs)
        optimizer.step()

    return once
