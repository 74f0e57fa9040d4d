"""Pairs, predictions and contrasts from rows of tokens, in a run and after it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.comparisons import ROW_TYPES, Comparisons, Wanted
from finetune_lm.analysis.item_columns import Sentences, columns_of_items, metadata_columns
from finetune_lm.analysis.pair_summary import SUMMARY_TYPES, summary_of
from finetune_lm.analysis.sentence_costs import SentenceCosts
from finetune_lm.data.items import ITEM, PHENOMENON
from finetune_lm.errors import UserError
from finetune_lm.formulas import Formula, parse_contrasts, parse_prediction
from finetune_lm.recording.columns import MODE, SEQUENCE_TYPE, has_modes
from finetune_lm.recording.tables import as_frame

if TYPE_CHECKING:
    import pandas as pd

_OF_PASS = (
    "model_name",
    MODE,
    "revision",
    "seed",
    "epoch",
    "step",
    "dataset_name",
    "dataset_type",
)
"""What is the same in all rows of one pass over a data set."""

_NEEDED = (
    "example_num",
    ITEM,
    "original_text",
    SEQUENCE_TYPE,
    "is_target",
    "is_unknown",
    "region",
    "surprisal",
)
"""What rows must have, as far as they have it, beside metadata and what is the same in a pass."""

_NO_START_TOKEN = "none"


def start_token_of(start_tokens: Sequence[str]) -> str:
    """What a summary says of what stands before each text."""
    return " ".join(start_tokens) or _NO_START_TOKEN


@dataclass(frozen=True)
class Asked:
    """What is asked of tables of tokens.

    Attributes:
        wanted: What is compared.
        predictions: The formulas of each test suite, by the name of the data set.
        datasets: The names of the data sets in which something is compared; None for any.
        start_token: What stands before each text: NA in the summary where that is not known.
    """

    wanted: Wanted = field(default_factory=Wanted)
    predictions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    datasets: Collection[str] | None = None
    start_token: str | None = None

    def covers(self, dataset_name: str) -> bool:
        """Whether a data set is asked about."""
        return self.datasets is None or dataset_name in self.datasets

    def formulas(self, dataset_name: str) -> list[Formula]:
        """The predictions of a data set, read."""
        texts = self.predictions.get(dataset_name, ())
        return [parse_prediction(text, f"{dataset_name}: predictions") for text in texts]


class PassResult(NamedTuple):
    """What came of one pass over a data set.

    Attributes:
        pairs: A row for each pair, prediction and contrast of an item.
        summary: A row for each phenomenon.
    """

    pairs: pa.Table
    summary: pa.Table


class PairScorer:
    """Scores the pairs of one data set, in one pass after another.

    Which sentences belong together is learned from the first pass. Memory does not grow with the
    number of passes.

    Args:
        asked: What is asked.
        dataset_name: The data set.
        metadata: The metadata columns of the rows.
    """

    def __init__(self, asked: Asked, dataset_name: str, metadata: Sequence[str]) -> None:
        self._asked = asked
        self._name = dataset_name
        self._formulas = asked.formulas(dataset_name)
        self._sentences = Sentences(metadata)
        self._costs = SentenceCosts()
        self._comparisons: Comparisons | None = None
        self._columns: dict[int, dict[str, pa.Array]] = {}

    def add(self, rows: pa.Table) -> None:
        """Take in rows of tokens of the pass under way."""
        n = len(self._sentences.metadata)
        self._costs.add(rows, self._sentences.of(rows))
        if len(self._sentences.metadata) > n:
            self._comparisons, self._columns = None, {}

    def finish(self, of_pass: Mapping[str, Any]) -> PassResult | None:
        """End a pass.

        Args:
            of_pass: What is the same in all of its rows.

        Returns:
            What came of it; None if nothing is compared in this data set.
        """
        if self._comparisons is None:
            self._comparisons = Comparisons(
                self._sentences.metadata, self._asked.wanted, self._formulas
            )
        costs, self._costs = self._costs, SentenceCosts()
        types = self._sentences.types
        tables = []
        for place, (items, worked_out) in enumerate(self._comparisons.of_costs(costs)):
            if place not in self._columns:
                own = columns_of_items(items, types, but={*ROW_TYPES, *_OF_PASS})
                phenomena = [item.phenomenon or self._name for item in items]
                self._columns[place] = {PHENOMENON: pa.array(phenomena, pa.string()), **own}
            shared = dict(self._columns[place])
            before = {name: shared.pop(name) for name in (PHENOMENON, ITEM)}
            tables.append(pa.table({**before, **worked_out, **shared}))
        if not tables:
            return None
        rows = _together(tables)
        constants = {
            "leading_space": self._sentences.leading_space,
            "start_token": self._asked.start_token,
        }
        return PassResult(
            _with_constants(rows, of_pass),
            _with_constants(summary_of(rows, constants), of_pass),
        )


def _with_constants(rows: pa.Table, of_pass: Mapping[str, Any]) -> pa.Table:
    columns = {name: pa.repeat(_scalar(value), len(rows)) for name, value in of_pass.items()}
    return pa.table({**columns, **{name: rows[name] for name in rows.column_names}})


def _scalar(value: Any) -> pa.Scalar:
    return pa.scalar(value, pa.int64()) if value is None else pa.scalar(value)


def needed_columns(columns: Sequence[str]) -> list[str]:
    """Which columns of a token table pairs need."""
    needed = {*_NEEDED, *_OF_PASS, *metadata_columns(columns)}
    return [name for name in columns if name in needed]


def pair_columns(of_pass: Iterable[str], metadata: Sequence[str]) -> list[str]:
    """The columns of a table of pairs, in order.

    Args:
        of_pass: Columns of which all rows of a pass have the same value.
        metadata: The metadata columns of the token table.
    """
    own = columns_of_items([], dict.fromkeys(metadata, pa.string()), {*ROW_TYPES, *_OF_PASS})
    return [*of_pass, PHENOMENON, ITEM, *ROW_TYPES, *(name for name in own if name != ITEM)]


def summary_columns(of_pass: Iterable[str]) -> list[str]:
    """The columns of a summary, in order."""
    return [*of_pass, *SUMMARY_TYPES]


def columns_of_pass(names: Sequence[str]) -> list[str]:
    """Which columns of a token table are the same in all rows of a pass, as pairs have them.

    Args:
        names: The columns of the table, in order.
    """
    by_mode = has_modes(names)
    return [name for name in _OF_PASS if name in names and (name != MODE or by_mode)]


class PassSplitter:
    """Cuts a stream of rows into passes over data sets, and scores each.

    Args:
        asked: What is asked.
        metadata: The metadata columns of the rows.
        of_pass: The columns that are the same in all rows of a pass.
    """

    def __init__(self, asked: Asked, metadata: Sequence[str], of_pass: Sequence[str]) -> None:
        self._asked = asked
        self._metadata = metadata
        self._names = of_pass
        self._scorers: dict[Any, PairScorer] = {}
        self._under_way: dict[str, Any] | None = None

    def add(self, rows: pa.Table) -> Iterator[PassResult]:
        """Take in rows, those of a pass not among those of another one.

        Yields:
            What came of each pass that is over.
        """
        for of_pass, part in _by_pass(rows, self._names):
            if of_pass != self._under_way:
                yield from self.finish()
            self._under_way = of_pass
            if self._asked.covers(of_pass["dataset_name"]):
                self._scorer(of_pass).add(part)

    def finish(self) -> Iterator[PassResult]:
        """End the pass under way.

        Yields:
            What came of it.
        """
        of_pass, self._under_way = self._under_way, None
        if of_pass is not None and self._asked.covers(of_pass["dataset_name"]):
            result = self._scorer(of_pass).finish(of_pass)
            if result is not None:
                yield result

    def _scorer(self, of_pass: Mapping[str, Any]) -> PairScorer:
        name = of_pass["dataset_name"]
        key = (name, of_pass.get("dataset_type"), of_pass.get(MODE))
        if key not in self._scorers:
            self._scorers[key] = PairScorer(self._asked, name, self._metadata)
        return self._scorers[key]


def _by_pass(rows: pa.Table, columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], pa.Table]]:
    """Rows by what is the same in all rows of a pass, in the order in which it is met."""
    names = [name for name in columns if name in rows.column_names]
    if not len(rows):
        return
    codes = []
    for name in names:
        encoded = rows[name].combine_chunks().dictionary_encode()
        codes.append(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    _, first, which = np.unique(np.stack(codes), axis=1, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    for k in np.argsort(first):
        of_pass = {name: rows[name][int(first[k])].as_py() for name in names}
        part = rows if len(first) == 1 else rows.filter(pa.array(which == k))
        yield of_pass, part


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below another. A column that is text in one of them is text in all."""
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field_ in table.schema:
            types.setdefault(field_.name, set()).add(field_.type)
    texts = {name for name, kinds in types.items() if pa.string() in kinds and len(kinds) > 1}
    cast = []
    for table in tables:
        for name in texts.intersection(table.column_names):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(pa.string()))
        cast.append(table)
    return pa.concat_tables(cast, promote_options="permissive").combine_chunks()


class PairFrames(NamedTuple):
    """Pairs as data frames.

    Attributes:
        pairs: A row for each pair, prediction and contrast of an item.
        summary: A row for each phenomenon.
    """

    pairs: pd.DataFrame
    summary: pd.DataFrame


def pairs(
    frame: pd.DataFrame,
    *,
    contrasts: Mapping[str, str] | None = None,
    predictions: Mapping[str, Sequence[str]] | Sequence[str] = (),
    region: str | int | None = None,
    start_token: str | None = None,
) -> PairFrames:
    """Compare the sentences of each item in a table of tokens.

    Which belong together is said by the columns ``item`` or ``pair``, ``condition`` and
    ``expected``, which are metadata of the data.

    Args:
        frame: Rows of tokens, as `load_metrics` reads them; of one model or several, one epoch or
            many.
        contrasts: Differences between conditions by name, such as ``"reversed - expected"``.
        predictions: Formulas of SyntaxGym, for all data sets or by data set.
        region: The region over which pairs are scored; by default the one that the data have, if
            all of them have the same one, else the whole text.
        start_token: What stands before each text, which is on no row, for the summary.

    Returns:
        A row for each comparison, and a row for each phenomenon; see docs/pairs.md.

    Raises:
        UserError: If nothing can be compared, or a formula cannot be read.

    Example:
        >>> found = pairs(load_metrics("tiny-lm-test_results.csv.gz"))  # doctest: +SKIP
        >>> found.summary[["phenomenon", "accuracy", "ci_low", "ci_high"]]  # doctest: +SKIP
    """
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    needed = ("dataset_name", "example_num", "surprisal")
    if missing := [name for name in needed if name not in rows.column_names]:
        raise UserError(
            f"pairs needs rows of tokens, with the column {missing[0]}, but got a table with "
            f"{', '.join(rows.column_names) or 'no columns'}."
        )
    names = set(rows["dataset_name"].unique().to_pylist())
    by_name = predictions if isinstance(predictions, Mapping) else dict.fromkeys(names, predictions)
    formulas = {name: by_name.get(name, ()) for name in names}
    wanted = Wanted(parse_contrasts(contrasts or {}), None if region is None else str(region))
    metadata = metadata_columns(rows.column_names) or list(rows.column_names)
    asked = Asked(wanted, formulas, start_token=start_token)
    splitter = PassSplitter(asked, metadata, columns_of_pass(rows.column_names))
    results = [*splitter.add(rows), *splitter.finish()]
    if not results:
        raise UserError(
            "pairs needs items to compare: rows with item or pair, condition, and expected (true "
            "for the sentence that is expected to be likelier), or contrasts of conditions that "
            "are there."
        )
    tables = (_together([r.pairs for r in results]), _together([r.summary for r in results]))
    return PairFrames(*map(as_frame, tables))
