"""Indices as numpy has them, read from text and turned into masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Item = int | slice | tuple[int, ...] | EllipsisType
"""What stands for one dimension; an ellipsis for as many as are left."""

_TOKEN = re.compile(r"\s*(\.\.\.|[-+]?[0-9]+|[:,()\[\]])")
_CLOSING = {"(": ")", "[": "]"}
_LONGEST_NUMBER = 18


def parse_index(text: str) -> tuple[Item, ...]:
    """Read what stands between the brackets of an index.

    An item is a number, a slice, several numbers in brackets of their own, or an ellipsis.

    Args:
        text: The text without the brackets around it.

    Raises:
        UserError: If it is no index.

    Example:
        >>> parse_index("3, :")
        (3, slice(None, None, None))
        >>> parse_index("(1,5,9)")
        ((1, 5, 9),)
        >>> parse_index("..., -1")
        (Ellipsis, -1)
    """
    reader = _Reader(text)
    items: list[Item] = [_read_item(reader)]
    while reader.take(","):
        if reader.next is None:
            break
        items.append(_read_item(reader))
    if reader.next is not None:
        raise reader.error(f"{reader.next!r} cannot stand there")
    if sum(item is Ellipsis for item in items) > 1:
        raise reader.error("there can be only one ...")
    if sum(isinstance(item, tuple) for item in items) > 1:
        raise reader.error(
            "only one dimension can have several numbers; give an index for each number"
        )
    return tuple(items)


def index_mask(index: tuple[Item, ...], shape: Sequence[int]) -> Tensor:
    """Which entries of a tensor an index means.

    Args:
        index: What `parse_index` returns.
        shape: The tensor's.

    Returns:
        Booleans with one dimension for each of the tensor's, of size 1 where all of it is meant: so
        that it broadcasts to the tensor's shape.

    Raises:
        UserError: If there is nothing at the index.

    Example:
        >>> index_mask((1, slice(None)), (3, 2)).tolist()
        [[False], [True], [False]]
    """
    import torch

    n_given = sum(item is not Ellipsis for item in index)
    if n_given > len(shape):
        has = f"has {len(shape)} dimension{'' if len(shape) == 1 else 's'}" if shape else "has none"
        raise UserError(f"the index is for {n_given} dimensions, but the parameter {has}.")
    place = index.index(Ellipsis) if Ellipsis in index else len(index)
    full: list[Item] = [slice(None)] * (len(shape) - n_given)
    mask = torch.ones([1] * len(shape), dtype=torch.bool)
    for dim, item in enumerate([*index[:place], *full, *index[place + 1 :]]):
        positions = _positions(item, dim, shape[dim])
        if len(positions) < shape[dim]:
            along = torch.zeros(shape[dim], dtype=torch.bool)
            along[torch.tensor(positions)] = True
            mask = mask & along.reshape([-1 if d == dim else 1 for d in range(len(shape))])
    return mask


def _positions(item: Item, dim: int, size: int) -> list[int]:
    """The entries that an item means, each once, in one dimension."""
    if isinstance(item, slice):
        for bound in (item.start, item.stop):
            if bound is not None and not -size <= bound <= size:
                raise UserError(
                    f"{bound} is out of range: dimension {dim} has {size} entries, so a slice "
                    f"reaches from 0 to {size}."
                )
        positions = list(range(size)[item])
        if not positions:
            raise UserError(f"the slice {_shown(item)} of dimension {dim} is empty.")
        return positions
    numbers = (item,) if isinstance(item, int) else item
    assert isinstance(numbers, tuple)
    for number in numbers:
        if not -size <= number < size:
            raise UserError(
                f"{number} is out of range: dimension {dim} has {size} entries, from 0 to "
                f"{size - 1} or from -{size} to -1."
            )
    return sorted({number % size for number in numbers})


def _shown(item: slice) -> str:
    parts = [item.start, item.stop] + ([] if item.step is None else [item.step])
    return ":".join("" if part is None else str(part) for part in parts)


class _Reader:
    """The tokens of an index, one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        end = 0
        while text[end:].strip():
            match = _TOKEN.match(text, end)
            if match is None:
                raise self.error(f"{text[end:].lstrip()[0]!r} cannot stand there")
            self._tokens.append(match[1])
            end = match.end()

    @property
    def next(self) -> str | None:
        """The next token; None at the end."""
        return self._tokens[0] if self._tokens else None

    def take(self, token: str) -> bool:
        """Go past the next token if it is this one."""
        if self.next != token:
            return False
        self._tokens.pop(0)
        return True

    def number(self) -> int | None:
        """Go past the next token if it is a number."""
        if self.next is None or not self.next[-1].isdigit():
            return None
        if len(self.next) > _LONGEST_NUMBER:
            raise self.error("a number is too large")
        return int(self._tokens.pop(0))

    def error(self, reason: str) -> UserError:
        return UserError(
            f"[{self._text}] is not an index: {reason}. Indices are like 5, -1, 0:100, (1,5,9), "
            "3,: and ...,0."
        )


def _read_item(reader: _Reader) -> Item:
    if reader.take("..."):
        return Ellipsis
    for opening, closing in _CLOSING.items():
        if reader.take(opening):
            return _read_numbers(reader, closing)
    number = reader.number()
    if reader.next == ":":
        return _read_slice(reader, number)
    if number is None:
        raise reader.error(
            "it ends too early" if reader.next is None else f"{reader.next!r} cannot stand there"
        )
    return number


def _read_slice(reader: _Reader, start: int | None) -> slice:
    reader.take(":")
    stop, step = reader.number(), None
    if reader.take(":"):
        step = reader.number()
    if step == 0:
        raise reader.error("the step of a slice cannot be 0")
    return slice(start, stop, step)


def _read_numbers(reader: _Reader, closing: str) -> tuple[int, ...]:
    numbers: list[int] = []
    while not reader.take(closing):
        number = reader.number()
        if number is None:
            raise reader.error("brackets must hold numbers")
        numbers.append(number)
        if not reader.take(",") and reader.next != closing:
            raise reader.error(f"{closing!r} is missing")
    if not numbers:
        raise reader.error("brackets must hold numbers")
    return tuple(numbers)
