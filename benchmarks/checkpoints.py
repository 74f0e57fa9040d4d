"""Measure what a checkpoint costs: its writing, against an epoch, and all of them in a run."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from measuring import Row

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
EPOCHS = 60


def run(quick: bool) -> list[Row]:
    """What checkpoints cost a run of the built-in causal model, which has short epochs."""
    del quick
    best = dict.fromkeys((0, 1, None), float("inf"))
    for _ in range(3):
        for every in best:
            best[every] = min(best[every], seconds(every))
    return [
        Row(
            "a run with a checkpoint after each epoch, tiny-lm",
            "without",
            f"{best[1] / best[0]:.2f}",
        ),
        Row("a run with checkpoints by time, tiny-lm", "without", f"{best[None] / best[0]:.2f}"),
    ]


def seconds(every: int | None) -> float:
    """The time of a run: that of the clock, since most of it is waiting for the disk."""
    import finetune_lm

    with tempfile.TemporaryDirectory() as temporary:
        args = finetune_lm.DataTrainingArguments(
            train_file=str(DATA / "flomped_active.txt.gz"),
            validation_file=str(DATA / "flomped_passive.txt.gz"),
            max_train_samples=40,
            max_validation_samples=40,
            epochs=EPOCHS,
            checkpoint_every=every,
            seed=1,
            output_dir=str(Path(temporary) / "out"),
        )
        begun = time.monotonic()
        finetune_lm.run(finetune_lm.ModelArguments("tiny-lm"), args)
        return time.monotonic() - begun
