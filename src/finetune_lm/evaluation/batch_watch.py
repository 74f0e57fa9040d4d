"""Say which batch was too large when memory runs out, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError
from finetune_lm.models.compiling import compiler_watched
from finetune_lm.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from finetune_lm.data.batch import Batch
    from finetune_lm.evaluation.splits import Split


@contextmanager
def batch_watched(split: Split, batch: Batch, number: int, epoch: int | None) -> Iterator[None]:
    """Turn what no batch should bring about into errors for users.

    Running out of memory becomes one that says in which batch, and what to lower.

    Args:
        split: The data set.
        batch: The batch that is dealt with meanwhile.
        number: Its number.
        epoch: The epoch; None if there is none.

    Raises:
        UserError: If memory runs out, or the model cannot be compiled.
    """
    try:
        with compiler_watched():
            yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(split, batch, number, epoch, error) from error


def _too_large(
    split: Split, batch: Batch, number: int, epoch: int | None, error: BaseException
) -> UserError:
    kind, size = split.dataset_type, split.batch_size
    in_epoch = "" if epoch is None else f"epoch {epoch}, "
    n, length = batch.inputs["input_ids"].shape
    examples = "example" if n == 1 else "examples"
    made = f", made of {size} by preprocessing" if n > size else ""
    loss = getattr(error, "loss", None)
    during = f" while {loss} was computed" if loss else ""
    of_loss = f", or what loss_classes_kwargs gives {loss}" if loss else ""
    return UserError(
        f"memory ran out in {in_epoch}{kind} batch {number}{during}: {n} {examples} of {length} "
        f"tokens, padding included{made}. Lower --per_device_{kind}_batch_size ({size}) or "
        f"--max_length{of_loss}, or take a smaller model."
    )


@contextmanager
def in_loss(name: str) -> Iterator[None]:
    """Let an error about memory say in which loss it arose."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            error.loss = name  # type: ignore[union-attr]
        raise
