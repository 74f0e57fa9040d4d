"""What is said of a batch that has gone wrong."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.errors import UserError
from finetune_lm.ranks import world
from finetune_lm.recording.recorder import BatchAt, Measured
from finetune_lm.scoring.shares import ranks_of


def losses_not_finite(measured: Measured) -> UserError:
    """A loss of a batch is infinite or not a number."""
    losses = measured.losses or {}
    values = ", ".join(f"{name} {value}" for name, value in losses.items())
    split = measured.split
    return UserError(
        f"losses must be finite but in epoch {measured.epoch}, {split.dataset_type} batch "
        f"{measured.number}, came {values}. In it "
        f"{_examples_named(split.dataset, measured.batch)}. What was recorded before is kept. A "
        f"lower lr often helps; --on_nan skip leaves such steps out."
    )


def check_surprisals(measured: Measured) -> None:
    """Stop a run whose model finds no numbers.

    Raises:
        UserError: If a surprisal is infinite or not a number, with its example.
    """
    tokens = measured.tokens
    if tokens is None or np.isfinite(tokens.scores.surprisal).all():
        return
    rows = measured.rows
    spoiled = rows.filter(pc.invert(pc.is_finite(rows["surprisal"])))  # missing ones are left out
    first = {name: spoiled[name][0].as_py() for name in ("surprisal", "token", "example_num")}
    raise UserError(
        f"surprisals must be finite but that of {first['token']!r} in example_num "
        f"{first['example_num']} of {measured.split.dataset.path} is {first['surprisal']}. A model "
        f"in half precision may need more, or has gone wrong in training; --on_nan skip leaves "
        f"such surprisals in the table."
    )


def too_large(at: BatchAt, error: BaseException) -> UserError:
    """Memory ran out: in which batch, and what to lower.

    Args:
        at: The batch.
        error: What was raised.
    """
    # What the user has given, and had: of several ranks what each has.
    kind, size = at.split.dataset_type, at.split.batch_size // world().size
    in_epoch = "" if at.epoch is None else f"epoch {at.epoch}, "
    length = at.batch.inputs["input_ids"].shape[1]
    n = int((ranks_of(at.batch) == world().rank).sum())
    examples = "example" if n == 1 else "examples"
    made = f", made of {size} by preprocessing" if n > size else ""
    loss = getattr(error, "loss", None)
    during = f" while {loss} was computed" if loss else ""
    of_loss = f", or what loss_classes_kwargs gives {loss}" if loss else ""
    return UserError(
        f"memory ran out in {in_epoch}{kind} batch {at.number}{during}: {n} {examples} of {length} "
        f"tokens, padding included{made}. Lower --per_device_{kind}_batch_size ({size}) or "
        f"--max_length{of_loss}, or take a smaller model."
    )


_NAMED = 64


def _examples_named(dataset: Dataset, batch: Batch) -> str:
    """The examples of a batch by number and file, as a clause."""
    numbers = [str(dataset.example_nums[i]) for i in dict.fromkeys(batch.example.tolist())]
    if len(numbers) == 1:
        return f"is example_num {numbers[0]} of {dataset.path}"
    shown = ", ".join(numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"are example_num {shown}{more} of {dataset.path}"
