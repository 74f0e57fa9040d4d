"""Test sets: what each of their tokens costs the model, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetune_lm.analysis.pair_tables import RESULTS_SUFFIX, pair_tables
from finetune_lm.constants import PER_BATCH
from finetune_lm.evaluation.asked_of_pairs import asked_of_pairs
from finetune_lm.evaluation.evaluate import record_surprisals
from finetune_lm.evaluation.splits import Split
from finetune_lm.evaluation.unfinished_tests import EvaluationProgress
from finetune_lm.models.sharding import is_sharded
from finetune_lm.models.weights import hash_of_weights
from finetune_lm.recording.columns import SEED
from finetune_lm.recording.progress_bars import TestBar
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.shared_rows import Rows
from finetune_lm.recording.tables import TableWriter
from finetune_lm.recording.token_table import word_rows
from finetune_lm.recording.waiting_rows import WaitingRows
from finetune_lm.recording.word_table import WordTable
from finetune_lm.runs.context import Run
from finetune_lm.runs.directory import words_path
from finetune_lm.whole_files import write_whole

Write = Callable[[Rows], object]


def test(
    run: Run,
    splits: Sequence[Split],
    path: Path,
    epoch: int | None,
    save: Callable[[], object],
) -> int:
    """Test the model on all test sets, and leave a table of what tokens cost, and one of words.

    Where sentences are compared, tables of pairs stand beside it.

    Args:
        run: What is run.
        splits: The test sets.
        path: The table's path. Beside it are temporary files, if such are wanted, from which a test
            that was killed goes on.
        epoch: The epoch whose model this is; None if it was not trained.
        save: What is done before a signal ends the run.

    Returns:
        How many rows the table has.

    Raises:
        UserError: If a surprisal is not finite and that is to stop the run.
    """
    kept: list[EvaluationProgress] = []
    with _tables(run, splits, path) as tables:
        run.callbacks.run("pre_test", epoch)
        for number, split in enumerate(splits):
            run.callbacks.run("pre_test_dataset", epoch)
            finished: list[pa.Table] = []
            keep: list[Write] = []
            if run.args.save_tmp_test_files:
                identity = _identity(run, split, epoch)
                if run.world.is_first:
                    aside = path.with_name(f"tmp-test-{number}-{split.dataset.name}.json.gz")
                    kept.append(EvaluationProgress(aside, identity))
                    finished = kept[-1].finished_batches()
                    keep = [_as_table(kept[-1].add)]
            for rows in finished:
                for write in tables.writers:
                    write(_with_seed(rows, run.args.seed))
            writers = [*tables.writers, *keep]
            waiting = WaitingRows(writers, at_most=0) if keep else WaitingRows(writers)
            n_finished = run.world.decided(len, finished)
            for _ in record_surprisals(run, split, epoch, waiting, skip=n_finished):
                tables.batch_is_over()
                run.interruption.check(before=save)
            tables.end_piece()
            run.callbacks.run("post_test_dataset", epoch)
    for progress in kept:
        progress.remove()
    return tables.n_rows


class _Tables:
    """What a test leaves: of several ranks the first has tables, the others none.

    Args:
        tables: Those that are written piece by piece.
        writers: Given the rows of each batch.
        bar: Shows how far it is.
    """

    def __init__(
        self,
        tables: Sequence[TableWriter | WordTable] = (),
        writers: Sequence[Write] = (),
        bar: TestBar | None = None,
    ) -> None:
        self._tables, self.writers, self._bar = tables, writers, bar

    @property
    def n_rows(self) -> int:
        """How many rows the first of them has."""
        return self._tables[0].n_rows if self._tables else 0

    def batch_is_over(self) -> None:
        """Show a batch."""
        if self._bar is not None:
            self._bar.batch_is_over()

    def end_piece(self) -> None:
        """Put a test set on disk."""
        for table in self._tables:
            table.end_piece()


@contextmanager
def _tables(run: Run, splits: Sequence[Split], path: Path) -> Iterator[_Tables]:
    """The tables of a test, which are there as wholes or not at all."""
    if not run.world.is_first:
        yield _Tables()
        return
    assert splits[0].rows is not None
    columns = splits[0].rows.run.names()
    stem = path.with_name(path.name.removesuffix(RESULTS_SUFFIX))
    n_batches = sum(split.dataset.n_batches(split.batch_size) for split in splits)
    with (
        write_whole(path) as aside,
        TableWriter(aside, columns) as table,
        pair_tables(stem, asked_of_pairs(run.args, splits), columns) as pairs,
        _words_beside(run, splits[0].rows.run, path) as words,
        TestBar(n_batches) as bar,
    ):
        tables: list[TableWriter | WordTable] = [table, *words]
        add = [] if pairs is None else [_as_table(pairs.add)]
        yield _Tables(tables, [*(each.write for each in tables), *add], bar)


@contextmanager
def _words_beside(run: Run, columns: RunColumns, path: Path) -> Iterator[Sequence[WordTable]]:
    """The table of words beside one of test results, if it is wanted."""
    if not run.args.word_tables:
        yield ()
        return
    beside = words_path(path)
    with write_whole(beside) as aside:
        table = WordTable(aside, word_rows(columns), name=beside.name)
        yield (table,)
        table.close()
    table.tell()


def _identity(run: Run, split: Split, epoch: int | None) -> dict[str, Any]:
    """Everything that the rows of a test set depend on. All ranks have to ask."""
    dataset, rows, model = split.dataset, split.rows, split.forward.model
    weights: Any = hash_of_weights(model)
    if is_sharded(model):
        weights = run.world.gather(weights)
    preprocessing = dataset.preprocessing
    assert rows is not None
    return {
        "model": [run.loaded.name, dataset.task.name, weights],
        "epoch": epoch,
        "input_ids": dataset.input_ids.tolist(),
        "texts": [dataset.texts, dataset.labels, dataset.metadata],
        "seen_in": rows.run.seen_in.get(dataset.path),
        "batch_size": split.batch_size,
        "columns": rows.describe(),
        "preprocessing": [preprocessing.name, preprocessing.strategy, preprocessing.kwargs],
        # Masks that are drawn anew for each batch are the same only from the same seed.
        "seed": rows.run.seed if preprocessing.strategy == PER_BATCH else None,
    }


def _as_table(write: Callable[[pa.Table], object]) -> Write:
    return lambda rows: write(rows.table)


def _with_seed(rows: pa.Table, seed: int) -> Rows:
    """Rows of an earlier run under this run's seed."""
    column = pa.repeat(pa.scalar(seed), len(rows))
    return Rows.of(rows.set_column(rows.column_names.index(SEED), SEED, column))
