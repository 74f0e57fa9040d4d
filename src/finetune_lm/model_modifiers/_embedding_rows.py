"""Rows of embeddings for new tokens: making room for them, and what they start with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


_BLOCK = 4096


def n_rows(model: Any) -> int:
    """For how many ids a model has embeddings."""
    return int(model.get_input_embeddings().weight.shape[0])


def make_room(model: Any, needed: int) -> None:
    """See that a model has embeddings for ids below a number, on the input and the output side.

    Models may have more rows than their tokenizer has tokens; while these last nothing changes.

    Raises:
        UserError: If the model cannot be given more.
    """
    if n_rows(model) >= needed:
        return
    try:
        # What this puts into the new rows is overwritten afterwards.
        model.resize_token_embeddings(needed, mean_resizing=False)
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"add_new_tokens needs a model whose embeddings can be enlarged, but this one "
            f"({type(model).__name__}) cannot: {error}"
        ) from error


def tables(model: Any) -> list[Tensor]:
    """All that has one row for each token.

    Returns:
        Input embeddings, output embeddings where they are not the same, and the output's bias
        where there is one as a table of one column: (rows, columns) each. They share memory with
        the model.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    found = [inputs.weight]
    if outputs is not None and outputs.weight is not inputs.weight:
        found.append(outputs.weight)
    # A linear layer has its own bias; BART's is beside it, and no parameter.
    biases = (getattr(outputs, "bias", None), getattr(model, "final_logits_bias", None))
    found += [bias.reshape(-1, 1) for bias in biases if bias is not None]
    return [table.detach() for table in found]


def set_to_mean(model: Any, sources: Mapping[int, Sequence[int]]) -> None:
    """Let rows start as means of other rows, in each table by itself.

    Args:
        model: The model.
        sources: For each row to set, the rows whose mean it is to be.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, source in sources.items():
        groups.setdefault(tuple(source), []).append(row)
    for table in tables(model):
        for source, rows in groups.items():
            table[rows] = _moments(table, source)[0].to(table.dtype)


def set_to_draws(model: Any, words: Sequence[Sequence[int]], like: Sequence[int]) -> None:
    """Let rows start as draws from a normal distribution that is like the rows of other tokens.

    Each column has their mean and standard deviation. The draws come from torch's generator.

    Args:
        model: The model.
        words: The rows of each word, which are given the same values.
        like: The rows of the tokens that are there.
    """
    import torch

    for table in tables(model):
        mean, spread = _moments(table, like)
        for rows in words:
            drawn = torch.randn(mean.shape, dtype=torch.float64).to(mean.device)
            table[list(rows)] = (mean + spread * drawn).to(table.dtype)


def set_to_draws_around_mean(
    model: Any, words: Sequence[Sequence[int]], like: Sequence[int], scale: float
) -> None:
    """Let rows start near the mean of other rows, in the directions in which these differ.

    They are drawn from a normal distribution with the mean of the other rows and ``scale`` times
    their covariance. The draws come from torch's generator.

    Args:
        model: The model.
        words: The rows of each word, which are given the same values.
        like: The rows of the tokens that are there.
        scale: What the covariance is multiplied by.
    """
    import torch

    for table in tables(model):
        mean, _ = _moments(table, like)
        # The covariance of n rows is X'X / n, where X are their distances from the mean. That is
        # also the covariance of X'z / sqrt(n) if z are n independent normal numbers, which takes
        # no matrix of columns by columns.
        drawn = torch.zeros(len(words), table.shape[1], dtype=torch.float64, device=table.device)
        for begin in range(0, len(like), _BLOCK):
            block = table[list(like[begin : begin + _BLOCK])].double() - mean
            drawn += torch.randn(len(words), len(block), dtype=torch.float64).to(block) @ block
        drawn *= math.sqrt(scale / len(like))
        for rows, of_word in zip(words, drawn, strict=True):
            table[list(rows)] = (mean + of_word).to(table.dtype)


def _moments(table: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of some rows, in float64; (columns,) each."""
    import torch

    def mean_of(function: Callable[[Tensor], Tensor]) -> Tensor:
        # In blocks: a copy of all rows in float64 may be larger than the model.
        total = torch.zeros(table.shape[1], dtype=torch.float64, device=table.device)
        for begin in range(0, len(rows), _BLOCK):
            total += function(table[list(rows[begin : begin + _BLOCK])].double()).sum(dim=0)
        return total / len(rows)

    mean = mean_of(lambda block: block)
    return mean, mean_of(lambda block: (block - mean) ** 2).sqrt()
