"""What does not fit into memory goes through a model in halves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from finetune_lm.messages import say_once
from finetune_lm.out_of_memory import is_out_of_memory

Part = TypeVar("Part")
Result = TypeVar("Result")


class Halving(Generic[Part]):
    """Goes through some batches of examples; through halves of one for which memory does not do.

    While something is learned a batch is one step, whose size is not for the machine to choose.

    Args:
        wholes: The batches.
        halves: The halves of one; none where there is only one example.
        what: What one is, for the message, as a plural.

    Example:
        >>> halving = Halving(batches, halves, described)  # doctest: +SKIP
        >>> for batch in halving:  # doctest: +SKIP
        ...     with halving.of(batch):
        ...         results.append(model(batch))
    """

    def __init__(
        self,
        wholes: Iterable[Part],
        halves: Callable[[Part], Iterable[Part]],
        what: Callable[[Part], str],
    ) -> None:
        self._left = list(wholes)
        self._halves = halves
        self._what = what
        self._has_failed = False

    def __iter__(self) -> Iterator[Part]:
        while self._left:
            yield self._left.pop(0)
            if self._has_failed:
                # Not before the error is gone, and what it holds with it.
                self._has_failed = False
                free_memory()

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Do something with a batch, which is put back in halves if memory does not do for it."""
        import torch

        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if torch.is_grad_enabled() or not is_out_of_memory(error):
                raise
            halves = list(self._halves(part))
            if not halves:
                raise
            self._left[:0] = halves
            self._has_failed = True
            say_once(f"memory ran out with {self._what(part)} in halves. The results are the same.")


def in_halves(
    whole: Part,
    do: Callable[[Part], Result],
    halves: Callable[[Part], Iterable[Part]],
    what: Callable[[Part], str],
) -> list[tuple[Part, Result]]:
    """Do something with some examples; with each half of them if memory does not do for all.

    Args:
        whole: The examples.
        do: What is done with them.
        halves: Their halves; none where there is only one example.
        what: What they are, for the message, as a plural.

    Returns:
        What was done together, and what came of it, in order.
    """
    done = []
    halving = Halving([whole], halves, what)
    for part in halving:
        with halving.of(part):
            done.append((part, do(part)))
    return done


def free_memory() -> None:
    """Let go of what an error has left in memory, before something smaller is tried."""
    import torch

    from finetune_lm.scoring.fast import scratch

    gc.collect()
    scratch.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
