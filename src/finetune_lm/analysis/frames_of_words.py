"""Words made of tables of tokens: of a data frame, and of a run's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from finetune_lm.errors import UserError
from finetune_lm.models.tasks import TASKS
from finetune_lm.recording.columns import has_modes
from finetune_lm.recording.table_text import TableText
from finetune_lm.recording.typed_rows import TypedRows
from finetune_lm.recording.word_columns import PLL
from finetune_lm.recording.word_rows import NEEDED, WordRows
from finetune_lm.recording.word_table import WordTable
from finetune_lm.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd


def words(
    frame: pd.DataFrame,
    *,
    over_word: Mapping[str, str | None] | None = None,
    pll: str | Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Put the tokens of a table together to words.

    Args:
        frame: Rows of tokens, as `load_metrics` reads them, in their order. They may be of several
            tables, and some may be left out: a word of which a token is missing has no surprisal.
        over_word: What is taken over a word of columns of measures that are not this package's own:
            ``sum``, ``first``, or None for nothing.
        pll: Which pseudo-log-likelihood the words of a masked model have, which the rows of tokens
            do not say: the column ``pll``. One for all, or one for each ``dataset_type``.

    Returns:
        A row a word, with the columns of ``words.csv.gz``.

    Raises:
        UserError: If columns are missing.

    Example:
        >>> metrics = load_metrics("outputs/mine")  # doctest: +SKIP
        >>> words(metrics).groupby(["epoch", "word"])["surprisal"].mean()  # doctest: +SKIP
    """
    import pandas as pd

    columns = [str(name) for name in frame.columns]
    _check_columns(columns, "the frame")
    with_pll = pll is not None
    maker = WordRows(columns, over_word or {}, with_pll=with_pll)
    try:
        rows = pa.Table.from_pandas(frame[maker.needed], preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"each column of the frame must be of one type: {error}.") from None
    if with_pll:
        kinds, tasks = (rows[name].to_pylist() for name in ("dataset_type", "task"))
        of_rows = [
            (pll if isinstance(pll, str) else (pll or {}).get(kind)) if _is_masked(task) else None
            for kind, task in zip(kinds, tasks, strict=True)
        ]
        rows = rows.append_column(PLL, pa.array(of_rows, pa.string()))
    parts = [part for part in (maker.add(rows), maker.finish()) if part is not None]
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    if not parts:
        return pd.DataFrame(columns=maker.columns)
    made: pd.DataFrame = pa.concat_tables(parts).to_pandas(types_mapper=nullable.get)
    return made.astype(dict.fromkeys(made.select_dtypes("float32"), float))


def make_word_table(
    tokens: Path,
    path: Path,
    *,
    over_word: Mapping[str, str | None],
    pll: Mapping[str, Mapping[str, str]],
) -> WordTable:
    """Make the table of words of a table of tokens, as a run with ``word_tables`` writes it.

    Memory does not grow with the table.

    Args:
        tokens: The table of tokens.
        path: Where that of words goes.
        over_word: What is taken over a word of columns that are not this package's own.
        pll: Of each kind of data, which pseudo-log-likelihood each data set has.

    Returns:
        The table, closed.

    Raises:
        UserError: If it is no such table, or one of an earlier version.
    """
    source = TableText(tokens, bounded=True)
    if source.columns:
        _check_columns(source.columns, str(tokens))
    reader = TypedRows(source.columns)
    with write_whole(path) as aside:
        table: WordTable | None = None
        last = 0
        for piece, text in source.parts():
            rows = reader.plain(text)
            if table is None:
                task = rows["task"][0].as_py()
                with_pll = has_modes(source.columns) or _is_masked(task)
                made = WordRows(source.columns, over_word, with_pll=with_pll)
                table = WordTable(aside, made, name=path.name, as_written=reader.as_written)
            if piece != last:
                table.end_piece()
                last = piece
            table.write(_with_pll(rows, pll) if with_pll else rows)
        if table is None:
            raise UserError(f"{tokens} must have rows but has none.")
        table.close()
    return table


def _is_masked(task: str) -> bool:
    """Whether a kind of model gives a text no likelihood, only a pseudo-log-likelihood."""
    return task in TASKS and not TASKS[task].predicts_in_order


def _with_pll(rows: pa.Table, pll: Mapping[str, Mapping[str, str]]) -> pa.Table:
    columns = (rows[name].to_pylist() for name in ("dataset_type", "dataset_name", "task"))
    values = [
        pll.get(kind, {}).get(name) if _is_masked(task) else None
        for kind, name, task in zip(*columns, strict=True)
    ]
    return rows.append_column(PLL, pa.array(values, pa.string()))


def _check_columns(columns: list[str], what: str) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(
            f"{what} must have the columns of a table of tokens of this version but lacks "
            f"{', '.join(missing)}."
        )
