"""What a model will be fed, laid out for people to check their masking."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.models.vocabulary import IntArray, spelled, vocabulary_of

WIDTH = 100
IGNORED = "-"
"""Stands for a label that is ignored."""

Column = tuple[str, str, str]
"""What stands above one another: a token, its mark, its label."""


def render(dataset: Dataset, n: int, mode: str | None = None) -> str:
    """Lay out the first examples of a data set.

    Args:
        dataset: The data set. Masks that are drawn for each batch are drawn as for its first one.
        n: How many examples, after preprocessing.
        mode: The mode of the model in which it is fed them, if it has two.

    Returns:
        A heading, and for each example its tokens, marks (``mask``; ``other`` and ``same`` where a
        label is to be predicted and another or the same token stands in its place) and labels.
    """
    doing = f"{dataset.preprocessing.name}, {dataset.preprocessing.strategy}"
    if mode is not None:
        doing = f"mode {mode}: {doing}"
    lines = [f"{dataset.path} ({doing})", ""]
    size = min(n, len(dataset))
    rows = (
        (batch, row) for batch in dataset.batches(size, bounded=True) for row in range(len(batch))
    )
    for batch, row in islice(rows, n):
        lines += [f"line {dataset.example_nums[batch.example[row]] + 1}"]
        lines += [*_laid_out(_columns(dataset, batch, row)), ""]
    return "\n".join(lines) + "\n"


def _columns(dataset: Dataset, batch: Batch, row: int) -> list[Column]:
    tokenizer = dataset.tokenizer
    n_inputs = int(batch.inputs["attention_mask"][row].sum())
    ids: IntArray = batch.inputs["input_ids"][row].numpy()[:n_inputs]
    labels: IntArray = batch.inputs["labels"][row].numpy()
    vocabulary = vocabulary_of(tokenizer)
    stands_for_span = np.isin(ids, vocabulary.sentinel_ids)
    is_mask = stands_for_span | (ids == (-1 if vocabulary.mask_id is None else vocabulary.mask_id))
    tokens = _tokens(tokenizer, ids)
    marks = ["mask" if mask else "" for mask in is_mask]
    if dataset.task.labels_parallel_inputs:
        labels = labels[:n_inputs]
        counted = labels != IGNORED_LABEL
        if not counted.all():  # else nothing is singled out
            kinds = np.where(ids == labels, "same", "other")
            marks = [
                mark or (str(kind) if counts else "")
                for mark, kind, counts in zip(marks, kinds, counted, strict=True)
            ]
        return list(zip(tokens, marks, _tokens(tokenizer, labels), strict=True))
    labels = labels[batch.is_label[row].numpy()]
    return _beside_sentinels(ids, tokens, marks, labels, _tokens(tokenizer, labels))


def _beside_sentinels(
    ids: IntArray, tokens: list[str], marks: list[str], labels: IntArray, label_tokens: list[str]
) -> list[Column]:
    """Put the labels of each span under its sentinel, and what belongs to none at the end."""
    columns: list[Column] = []
    begins = [int(i) for i in np.flatnonzero(np.isin(labels, ids[[mark != "" for mark in marks]]))]
    spans: dict[int, str] = {}
    rest = " ".join(label_tokens[: begins[0]] if begins else label_tokens)
    for begin, end in zip(begins, [*begins, len(labels)][1:], strict=True):
        spans[int(labels[begin])] = " ".join(label_tokens[begin:end])
    for token, mark, i in zip(tokens, marks, ids, strict=True):
        columns.append((token, mark, spans.pop(int(i), "") if mark else ""))
    return [*columns, ("", "", rest)] if rest else columns


def _tokens(tokenizer: Any, ids: IntArray) -> list[str]:
    """Tokens as the vocabulary spells them."""
    real = np.where(ids == IGNORED_LABEL, 0, ids).tolist()
    texts = spelled(tokenizer, real)
    return [IGNORED if i == IGNORED_LABEL else text for i, text in zip(ids, texts, strict=True)]


def _laid_out(columns: list[Column]) -> list[str]:
    """Columns beside one another, in as many blocks as it takes."""
    lines: list[str] = []
    block: list[Column] = []

    def finish() -> None:
        widths = [max(map(len, column)) for column in block]
        for name, parts in zip(("input", "", "label"), zip(*block, strict=True), strict=True):
            cells = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
            if any(parts):
                lines.append(f"  {name:<6} {' '.join(cells)}".rstrip())

    used = 0
    for column in columns:
        width = max(map(len, column)) + 1
        if block and used + width > WIDTH - 9:
            finish()
            block, used = [], 0
        block.append(column)
        used += width
    if block:
        finish()
    return lines
