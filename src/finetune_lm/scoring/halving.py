"""What does not fit into memory goes through a model in halves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import TypeVar

from finetune_lm.messages import say_once
from finetune_lm.out_of_memory import is_out_of_memory

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_halves(
    whole: Part,
    do: Callable[[Part], Result],
    halves: Callable[[Part], Iterable[Part]],
    what: Callable[[Part], str],
) -> list[tuple[Part, Result]]:
    """Do something with some examples; with each half of them if memory does not do for all.

    While something is learned a batch is one step, whose size is not for the machine to choose.

    Args:
        whole: The examples.
        do: What is done with them.
        halves: Their halves; none where there is only one example.
        what: What they are, for the message, as a plural.

    Returns:
        What was done together, and what came of it, in order.
    """
    import torch

    try:
        return [(whole, do(whole))]
    except (MemoryError, RuntimeError) as error:
        if torch.is_grad_enabled() or not is_out_of_memory(error):
            raise
        parts = list(halves(whole))
        if not parts:
            raise
    free_memory()
    say_once(f"memory ran out with {what(whole)} in halves. The results are the same.")
    return [each for part in parts for each in in_halves(part, do, halves, what)]


def free_memory() -> None:
    """Let go of what an error has left in memory, before something smaller is tried."""
    import torch

    from finetune_lm.scoring.fast import scratch

    gc.collect()
    scratch.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
