"""Some entries of a parameter, kept as they are while an optimizer moves the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_lm.models.sharding import part_of, same_part

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


class FrozenEntries:
    """Entries of one parameter that no step of an optimizer moves.

    A gradient of zero is not enough: weight decay and momentum move an entry without one. So the
    entries are also kept before the step and put back after it. Which entries these are is worked
    out once. Few are listed by their indices, and only they are copied; many are marked in a mask.

    Args:
        parameter: The parameter.
        frozen: True for the entries, of a shape that broadcasts to the parameter's: (rows, 1) for
            whole rows of a matrix.
    """

    def __init__(self, parameter: Parameter, frozen: Tensor) -> None:
        self._parameter = parameter
        # Of a parameter that is split among processes, what is here.
        frozen = same_part(frozen, parameter).to(parameter.device)
        values = part_of(parameter.detach())
        index = _listed(frozen)
        n_frozen = int(frozen.sum()) * (values.numel() // max(frozen.numel(), 1))
        size_of_list = n_frozen * values.element_size() + sum(
            place.nbytes for place in index if not isinstance(place, slice)
        )
        size_of_mask = values.nbytes + frozen.nbytes
        self._index = index if size_of_list <= size_of_mask else None
        self._mask = None if size_of_list <= size_of_mask else frozen
        self._kept: Tensor | None = None
        self._is_kept = False

    def before_step(self) -> None:
        """Set the gradients of the entries to zero, and keep their values.

        Without a gradient an optimizer leaves the parameter alone, and so does this.
        """
        if self._parameter.grad is None:
            return
        gradient = part_of(self._parameter.grad)
        if self._index is not None:
            gradient[self._index] = 0
        else:
            assert self._mask is not None
            gradient.masked_fill_(self._mask, 0)
        self.keep()

    def keep(self) -> None:
        """Keep the values of the entries."""
        values = part_of(self._parameter.detach())
        if self._index is not None:
            self._kept = values[self._index]
        else:
            assert self._mask is not None
            if self._kept is None:
                self._kept = values.clone()
            else:
                self._kept.copy_(values)
        self._is_kept = True

    def put_back(self) -> None:
        """Put the entries back to what they were when they were kept, to the last bit."""
        if not self._is_kept:
            return
        import torch

        assert self._kept is not None
        values = part_of(self._parameter.detach())
        if self._index is not None:
            values[self._index] = self._kept
        else:
            assert self._mask is not None
            torch.where(self._mask, self._kept, values, out=values)
        self._is_kept = False


def _listed(frozen: Tensor) -> tuple[Tensor | slice, ...]:
    """An index of the entries that a mask marks: their places in each dimension that differs."""
    return tuple(
        places if size > 1 else slice(None)
        for places, size in zip(frozen.nonzero(as_tuple=True), frozen.shape, strict=True)
    )
