"""Test sets: what each of their tokens costs the model, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from finetune_lm.constants import PER_BATCH
from finetune_lm.evaluation.evaluate import record_surprisals
from finetune_lm.evaluation.splits import Split
from finetune_lm.evaluation.unfinished_tests import EvaluationProgress
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.weights import hash_of_weights
from finetune_lm.progress_bars import TestBar
from finetune_lm.recording.columns import SEED
from finetune_lm.recording.tables import TableWriter

if TYPE_CHECKING:
    import torch


def record_test_sets(
    loaded: LoadedModel,
    splits: Sequence[Split],
    table: TableWriter,
    temporary: Path | None,
    *,
    epoch: int | None,
    device: torch.device,
    callbacks: Callbacks,
    check: Callable[[], object],
    on_nan: str,
) -> None:
    """Record all test sets, one piece of the table each.

    Args:
        loaded: The model.
        splits: The test sets.
        table: Where rows go.
        temporary: The directory for temporary files from which an evaluation that was killed goes
            on; None to keep none.
        epoch: The epoch whose model this is; None if it was not trained.
        device: Where the model is.
        callbacks: Act before and after each test set and each batch.
        check: Called after each batch; stops the run if that is asked for.
        on_nan: What to do about a surprisal that is not finite: ``stop`` or ``skip``.

    Raises:
        UserError: If one is not finite and that is to stop the run.
    """
    n_batches = sum(split.dataset.n_batches(split.batch_size) for split in splits)
    kept: list[EvaluationProgress] = []
    with TestBar(n_batches) as bar:

        def on_batch() -> None:
            bar.batch_is_over()
            check()

        callbacks.run("pre_test", epoch)
        for number, split in enumerate(splits):
            callbacks.run("pre_test_dataset", epoch)
            progress = None
            finished: list[pa.Table] = []
            if temporary is not None:
                path = temporary / f"tmp-test-{number}-{split.dataset.name}.json.gz"
                progress = EvaluationProgress(path, _identity(loaded, split, epoch))
                finished = progress.finished_batches()
                kept.append(progress)
            for rows in finished:
                table.write(_with_seed(rows, split))

            def write(
                _: int, rows: pa.Table, progress: EvaluationProgress | None = progress
            ) -> None:
                table.write(rows)
                if progress is not None:
                    progress.add(rows)

            record_surprisals(
                loaded.model,
                split,
                write,
                epoch=epoch,
                device=device,
                skip=len(finished),
                on_batch=on_batch,
                callbacks=callbacks,
                on_nan=on_nan,
            )
            table.end_piece()
            callbacks.run("post_test_dataset", epoch)
    for progress in kept:
        progress.remove()


def _identity(loaded: LoadedModel, split: Split, epoch: int | None) -> dict[str, Any]:
    """Everything that the rows of a test set depend on."""
    dataset = split.dataset
    preprocessing = dataset.preprocessing
    return {
        "model": [loaded.name, loaded.task.name, hash_of_weights(loaded.model)],
        "epoch": epoch,
        "input_ids": [list(map(int, ids)) for ids in dataset.dataset["input_ids"]],
        "texts": [dataset.texts, dataset.labels, dataset.metadata],
        "seen_in": split.rows.run.seen_in.get(dataset.path),
        "batch_size": split.batch_size,
        "columns": split.rows.describe(),
        "preprocessing": [preprocessing.name, preprocessing.strategy, preprocessing.kwargs],
        # Masks that are drawn anew for each batch are the same only from the same seed.
        "seed": split.rows.run.seed if preprocessing.strategy == PER_BATCH else None,
    }


def _with_seed(rows: pa.Table, split: Split) -> pa.Table:
    """Rows of an earlier run under this run's seed."""
    seed = pa.repeat(pa.scalar(split.rows.run.seed), len(rows))
    return rows.set_column(rows.column_names.index(SEED), SEED, seed)
