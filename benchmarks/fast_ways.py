"""What each part of the fast way is worth: a training step with it, against one without.

A part that is worth less than a twentieth everywhere is not worth its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

import other_kinds
import step
import workload
from finetune_lm.scoring.fast import (
    calling,
    criterion,
    dropout,
    embedding_rows,
    ragged_kinds,
    scratch,
)
from finetune_lm.scoring.fast.length_groups import Group
from measuring import N_TIMES, Row, Worker, smallest_of

WORTH = 0.95


@dataclass(frozen=True)
class Part:
    """A part of the fast way, and the step for which it is of use.

    Attributes:
        what: What it is.
        shape: The model's shape, or its kind if it is no causal model.
        where: What is particular about the step.
        step: More arguments of the step.
    """

    what: str
    shape: str = "small"
    where: str = ""
    step: dict[str, Any] = field(default_factory=dict)


PARTS = {
    "activations": Part(
        "GPT-2's activation function as one operation",
        where=f", vocabulary {workload.SMALL_VOCABULARY}",
        step={"vocabulary": workload.SMALL_VOCABULARY},
    ),
    "columns": Part("gradients of the output layer by parts of the vocabulary"),
    "dropout": Part("by a random byte for each value", "seq2seq"),
    "embedding_rows": Part(
        "gradients of tied embeddings by row",
        "seq2seq",
        where=", tuning off",
        step={"tuned": False},
    ),
    "length_groups": Part(
        "a batch as two, of short and of long examples",
        "seq2seq",
        where=", padding kept",
        step={"padded": True},
    ),
    "scratch": Part(
        "memory for logits that is used again", where=", tuning off", step={"tuned": False}
    ),
    "tuning": Part("settings of the allocator and of matrix products"),
}


def run(quick: bool = False) -> list[Row]:
    """What each part of the fast way is worth."""
    del quick
    return [_of_part(name, part) for name, part in PARTS.items()]


def _of_part(name: str, part: Part) -> Row:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                Worker(
                    "fast_ways", "training_step", shape=part.shape, without=without, more=part.step
                )
            )
            for without in ("", name)
        ]
        with_it, without_it = smallest_of(workers, N_TIMES)
    what = f"training step with {name} ({part.what}), {part.shape}{part.where}"
    return Row.at_most(what, "without", with_it / without_it, WORTH)


def training_step(shape: str, without: str, more: dict[str, Any]) -> Callable[[], object]:
    """A training step of a run, without a part of the fast way if one is named."""
    switches: dict[str, Callable[[], None]] = {
        "activations": lambda: setattr(calling, "replaceable", lambda model: []),
        "columns": lambda: setattr(criterion, "_COLUMNS_AT_ONCE", workload.VOCABULARY),
        "dropout": lambda: setattr(dropout, "dropout_by_bytes", nullcontext),
        "embedding_rows": lambda: setattr(embedding_rows, "handed_on", _kept),
        "length_groups": lambda: setattr(calling, "in_groups", _one_group),
        "scratch": lambda: setattr(scratch, "borrowed", _fresh),
    }
    if without in switches:
        switches[without]()
    if shape == "seq2seq" and more.pop("padded", False):
        ragged_kinds.PAIR_TYPES = frozenset()
    more = {"tuned": without != "tuning", **more}
    return other_kinds.ours(shape, **more) if shape == "seq2seq" else step.ours(shape, **more)


def _one_group(
    inputs: dict[str, torch.Tensor], rows: torch.Tensor, positions: torch.Tensor
) -> list[Group]:
    return [Group(inputs, rows, positions, torch.arange(len(rows)))]


@contextmanager
def _fresh(shape: tuple[int, int], like: torch.Tensor) -> Iterator[torch.Tensor]:
    yield torch.empty(shape, dtype=like.dtype, device=like.device)


@contextmanager
def _kept(weight: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    yield [weight]
