"""The gradients of several processes, added up: in memory that they share, or by messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from finetune_lm.common_memory import CommonMemory

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 2**26
"""How many numbers of gradients are put together, or a few more."""


class GradientSums:
    """Adds up gradients.

    Args:
        memory: Common memory of the processes.
        tell: Tells all of them something, and returns what each has told, in their order.
        add_up: Puts the sums over all processes into a tensor of one dimension, by a message.
    """

    def __init__(
        self,
        memory: CommonMemory,
        tell: Callable[[Any], list[Any]],
        add_up: Callable[[Tensor], object],
    ) -> None:
        self._memory, self._tell, self._add_up = memory, tell, add_up

    def take(self, parameters: Iterable[Any]) -> None:
        """Let the gradients of parameters be their sums.

        Args:
            parameters: The same ones in all processes. One that has a gradient in some has one in
                all afterwards.
        """
        import torch

        parameters = [each for each in parameters if each.requires_grad]
        has_one = torch.tensor([each.grad is not None for each in parameters])
        anywhere = torch.tensor(self._tell(has_one.tolist())).any(dim=0)
        with torch.no_grad():
            for parameter, is_there in zip(parameters, anywhere.tolist(), strict=True):
                if is_there and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            there = [each.grad for each in parameters if each.grad is not None]
            for number, part in enumerate(_alike(there)):
                if number:
                    self._tell(None)  # nobody is at the last part any more
                self._take_together(part)

    def _take_together(self, gradients: list[Tensor]) -> None:
        """The sums of some gradients of one kind."""
        import torch

        n_bytes = sum(each.numel() * each.element_size() for each in gradients)
        if gradients[0].device.type == "cpu" and self._memory.open(n_bytes):
            self._memory.add_up(gradients)
            return
        flat = torch.cat([each.reshape(-1) for each in gradients])
        self._add_up(flat)
        parts = torch.split(flat, [each.numel() for each in gradients])
        torch._foreach_copy_(
            gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)]
        )


def _alike(gradients: Iterable[Any]) -> Iterator[list[Tensor]]:
    """Gradients that can go together: of one type, on one device, and not too many."""
    part: list[Tensor] = []
    for gradient in gradients:
        is_other = bool(part) and (gradient.dtype, gradient.device) != (
            part[0].dtype,
            part[0].device,
        )
        if part and (is_other or sum(each.numel() for each in part) >= _AT_ONCE):
            yield part
            part = []
        part.append(gradient)
    if part:
        yield part
