"""One table of the tables of all runs, with the grid's values as columns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_file import GridFile, read_grid, text_of
from finetune_lm.grids.grid_runs import GridRun, runs_of
from finetune_lm.grids.run_states import State, data_of, state_of
from finetune_lm.grids.table_types import Types, WrongTypeError, pieces_of, type_of_texts
from finetune_lm.messages import say
from finetune_lm.recording.columns import SEED
from finetune_lm.recording.tables import TableWriter, as_frame, load_metrics
from finetune_lm.runs.directory import make_output_dir
from finetune_lm.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd

TABLES: Mapping[str, str] = {
    "tests": "*-test_results.csv.gz",
    "words": "*-test_words.csv.gz",
    "pairs": "*-test_pairs.csv.gz",
    "summary": "*-test_summary.csv",
    "probes": "probe_results.csv.gz",
    "probe_words": "probe_words.csv.gz",
    "probe_pairs": "probe_pairs.csv.gz",
    "probe_summary": "probe_summary.csv",
    "metrics": "metrics.csv.gz",
    "metric_words": "words.csv.gz",
    "trials": "optimization_results.csv.gz",
}
"""Which files of a run's directory each name stands for."""

RUN = "run"
"""The column that has the name of a run's directory."""
CLASH = "grid_"
"""Begins the column of a value whose name a table has for something else."""

PARQUET, CSV = ".parquet", ".csv.gz"
_ROWS_AT_ONCE = 2**17
_MOST_NAMED = 5


@dataclass(frozen=True)
class Collected:
    """What a collection has come to.

    Attributes:
        path: The table.
        n_rows: How many rows it has.
        n_runs: Of how many runs they are.
        missing: Which runs are not in it, by why.
    """

    path: Path
    n_rows: int
    n_runs: int
    missing: Mapping[str, Sequence[str]]

    def told(self) -> str:
        """The same in words."""
        n = self.n_runs + sum(map(len, self.missing.values()))
        lines = [f"{self.n_rows} rows of {self.n_runs} of {n} runs are in {self.path}"]
        for why, names in self.missing.items():
            shown = ", ".join(names[:_MOST_NAMED])
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            lines.append(f"missing: {len(names)} {why}: {shown}{more}")
        return "\n".join(lines)


def pattern_of(table: str) -> str:
    """The files that are meant by the name of a kind of table, or by a pattern.

    Raises:
        UserError: If there is no such kind.
    """
    if table in TABLES:
        return TABLES[table]
    if "." in table and "/" not in table:
        return table
    raise UserError(
        f"table must be one of {', '.join(TABLES)}, or a pattern such as '*-test_results.csv.gz', "
        f"but got {table}.{did_you_mean(table, TABLES)}"
    )


def default_table(runs: Sequence[GridRun]) -> str:
    """Which tables are meant where nothing is said: those of tests, or of a study's trials."""
    return "trials" if any(run.arguments()[2].do_optimize for run in runs[:1]) else "tests"


def collect(runs: Sequence[GridRun], path: Path, table: str = "tests") -> Collected:
    """Put the tables of all finished runs together.

    They are read and written piece by piece, so memory does not grow with the number of runs. The
    same runs give the same file.

    Args:
        runs: All runs of a grid.
        path: Where the table goes: a ``.parquet`` or ``.csv.gz`` file, which is replaced.
        table: Which kind of table: a name of `TABLES`, or a pattern of names of files.

    Raises:
        UserError: If there is no such table yet, or the path is of no such file.
    """
    if not path.name.endswith((PARQUET, CSV)):
        raise UserError(f"a table must be a {PARQUET} or {CSV} file but got {path}.")
    if not path.parent.is_dir():
        make_output_dir(path.parent)
    pattern = pattern_of(table)
    found, missing = _tables(runs, pattern)
    if not found:
        told = ", ".join(f"{len(names)} {why}" for why, names in missing.items())
        raise UserError(f"no run has a table {pattern} to be collected: {told}.")
    types = Types()
    for run, tables in found:
        about = data_of(run.directory)
        for each in tables:
            types.take_in(each, about)
    # The seed of a run is the same in both.
    axes = axis_columns(runs[0].grid, {RUN, *types.names} - {SEED})
    while True:
        try:
            n_rows = _write(found, path, types, axes)
            break
        except WrongTypeError as error:
            # A value that the beginning of a table did not show.
            types.widen(error)
    return Collected(path, n_rows, len(found), missing)


def _tables(
    runs: Sequence[GridRun], pattern: str
) -> tuple[list[tuple[GridRun, list[Path]]], dict[str, list[str]]]:
    """The tables of each finished run, and the runs that have none, by why."""
    found: list[tuple[GridRun, list[Path]]] = []
    missing: dict[str, list[str]] = {}
    for run in runs:
        state = state_of(run.directory).state
        paths = sorted(run.directory.glob(pattern)) if state is State.FINISHED else []
        paths = [path for path in paths if path.stat().st_size]
        if paths:
            found.append((run, paths))
        else:
            why = state.value if state is not State.FINISHED else "without such a table"
            missing.setdefault(why, []).append(run.name)
    return found, missing


def axis_columns(grid: GridFile, taken: Collection[str]) -> dict[str, tuple[str, pa.DataType]]:
    """The column of each axis of a grid, and its type, by the axis.

    Args:
        grid: The grid.
        taken: Names that a table has for something else.
    """
    return {
        axis.name: (
            CLASH + axis.name if axis.name in taken else axis.name,
            pa.string() if axis.sets else type_of_texts([text_of(v) for v in axis.values]),
        )
        for axis in grid.axes
    }


def _write(
    found: Sequence[tuple[GridRun, list[Path]]],
    path: Path,
    types: Types,
    axes: Mapping[str, tuple[str, pa.DataType]],
) -> int:
    """Write the table. Returns how many rows it has.

    Raises:
        WrongTypeError: If a column has a value that is not of its type.
    """
    fields = [pa.field(CLASH + RUN if RUN in types.names else RUN, pa.string())]
    fields += [pa.field(name, kind) for name, kind in axes.values()]
    fields += [f for f in types.fields() if f.name != SEED or SEED not in axes]
    schema = pa.schema(fields)
    n_rows = 0
    with write_whole(path) as aside, _writer(aside, schema, path.name) as write:
        waiting: list[pa.Table] = []
        for run, tables in found:
            values = {axis: pa.scalar(run.values[axis]).cast(axes[axis][1]) for axis in axes}
            for table in tables:
                for piece in pieces_of(table, types):
                    n = piece.num_rows
                    columns = {
                        fields[0].name: pa.repeat(pa.scalar(run.name), n),
                        **{axes[axis][0]: pa.repeat(v, n) for axis, v in values.items()},
                    }
                    for field in schema:
                        if field.name not in columns:
                            columns[field.name] = (
                                piece[field.name]
                                if field.name in piece.column_names
                                else pa.nulls(n, field.type)
                            )
                    waiting.append(pa.table(columns, schema=schema))
                    n_rows += n
                    if sum(each.num_rows for each in waiting) >= _ROWS_AT_ONCE:
                        write(pa.concat_tables(waiting))
                        waiting = []
        if waiting:
            write(pa.concat_tables(waiting))
    return n_rows


@contextmanager
def _writer(aside: Path, schema: pa.Schema, name: str) -> Iterator[Callable[[pa.Table], None]]:
    """What writes pieces of a table into a file of the kind that its name says."""
    if name.endswith(PARQUET):
        with pyarrow.parquet.ParquetWriter(aside, schema, compression="zstd") as parquet:
            yield parquet.write_table
        return
    with TableWriter(aside, schema.names) as table:

        def write(rows: pa.Table) -> None:
            table.write(rows)
            table.end_piece()

        yield write


def load_grid(path: str | Path, table: str | None = None) -> pd.DataFrame:
    """Read the table of a grid's runs with proper types.

    Args:
        path: A table that ``finetune-lm grid FILE collect`` has written; or a grid file, whose
            finished runs are read then.
        table: For a grid file, which kind of table: a name of `TABLES`, or a pattern.

    Returns:
        A data frame with the types of `load_metrics`, and before its columns ``run`` and a column
        for each name in which the runs differ.

    Raises:
        UserError: If there is no such table, or no run has one.

    Example:
        >>> results = load_grid("results.parquet")  # doctest: +SKIP
        >>> results.groupby(["verb", "class", "seed"])["surprisal"].mean()  # doctest: +SKIP
    """
    file = Path(path)
    if file.name.endswith((".yaml", ".yml")):
        with tempfile.TemporaryDirectory() as directory:
            runs = runs_of(read_grid(str(path)))
            out = Path(directory, "all.parquet")
            collected = collect(runs, out, table or default_table(runs))
            if collected.missing:
                say(collected.told().partition("\n")[2])
            return load_grid(collected.path)
    if file.name.endswith(PARQUET):
        if not file.is_file():
            raise UserError(f"there is no table {file}.")
        return as_frame(pyarrow.parquet.read_table(file))
    return load_metrics(file)
