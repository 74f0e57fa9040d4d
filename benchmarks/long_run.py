"""Show that memory stays as it is over thousands of epochs.

    python benchmarks/long_run.py [--epochs 2000]

A whole run of the built-in causal model on a few sentences, with its table, its checkpoints and
early stopping that never comes. Resident memory is read at each epoch. It may grow in the first 50,
while everything is used for the first time; after these, by no more than a hundredth.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from measuring import Row

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
WARM_UP = 50
MOST_GROWTH = 0.01

resident: dict[int, float] = {}
"""Resident memory in MB at the first step of each epoch."""


class ReadMemory:
    """A callback that reads resident memory once an epoch."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.process = psutil.Process()

    def __call__(self, epoch: int, batch: int) -> None:
        """Read it."""
        if batch == 0:
            resident[epoch] = self.process.memory_info().rss / 2**20


def measure(epochs: int) -> float:
    """Do the run. Returns the size of its table in MB; `resident` is filled."""
    import finetune_lm

    resident.clear()
    with tempfile.TemporaryDirectory() as temporary:
        result = finetune_lm.run(
            finetune_lm.ModelArguments("tiny-lm", model_pre_train_step_callbacks=[ReadMemory]),
            finetune_lm.DataTrainingArguments(
                train_file=str(DATA / "flomped_active.txt.gz"),
                validation_file=str(DATA / "flomped_passive.txt.gz"),
                max_train_samples=8,
                max_validation_samples=8,
                per_device_train_batch_size=4,
                epochs=epochs,
                patience=epochs,
                seed=1,
                output_dir=str(Path(temporary) / "out"),
            ),
        )
        return (result.output_dir / "metrics.csv.gz").stat().st_size / 2**20


def growth() -> float:
    """By what share memory was at most larger than after the first epochs."""
    after = [mb for epoch, mb in resident.items() if epoch >= WARM_UP]
    return max(after) / resident[WARM_UP] - 1


def run(quick: bool) -> list[Row]:
    """Most resident memory in 2,000 epochs (300 if quick), beyond that after the first 50."""
    epochs = 300 if quick else 2_000
    measure(epochs)
    more = max(mb for epoch, mb in resident.items() if epoch >= WARM_UP) - resident[WARM_UP]
    what = f"most resident memory in epochs {WARM_UP} to {epochs:,}"
    return [Row.at_most(what, f"in epoch {WARM_UP}", more, 10, " MB more")]


def main() -> int:
    """Do the run and print what it took. Returns the exit status: 1 if memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=2_000)
    epochs = parser.parse_args().epochs
    size = measure(epochs)
    step = max(epochs // 10, 1)
    for epoch in sorted({0, WARM_UP, *range(0, epochs, step), epochs - 1}):
        print(f"epoch {epoch:5}: {resident[epoch]:7.1f} MB")
    print(f"most after epoch {WARM_UP}: {growth():+.2%}; the table has {size:.1f} MB")
    return 1 if growth() > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
