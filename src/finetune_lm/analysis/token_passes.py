"""Tables of tokens, a pass over a data set at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.recording.columns import (
    LABEL_SEQUENCE,
    LOSS,
    MODE,
    SEQUENCE_TYPE,
    STEP,
    has_modes,
)
from finetune_lm.recording.typed_rows import table_pieces

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BEFORE_TRAINING = -1
"""The epoch of a pass before the first update."""

_KEYS = ("dataset_type", "dataset_name", "epoch", STEP)
NEEDED = (
    *_KEYS,
    MODE,
    *("batch_number", "example_num", "original_text", "input_text", SEQUENCE_TYPE),
    *("word_num", "token", "token_id", "is_target", "surprisal"),
)


@dataclass(frozen=True)
class PassKey:
    """Which pass over which data.

    Attributes:
        dataset_type: ``train``, ``validation``, ``test`` or ``probe``.
        dataset_name: The data, of a model in two modes with the mode: ``name (lm)``.
        epoch: As in the table: -1 before the training; None if nothing was trained.
        step: After how many updates, for probes.
        mode: The mode of a model that has two.
    """

    dataset_type: str
    dataset_name: str
    epoch: int | None
    step: int | None = None
    mode: str | None = None

    @property
    def dataset(self) -> tuple[str, str]:
        """Type and name of the data."""
        return self.dataset_type, self.dataset_name

    def called(self, dataset_name: str) -> PassKey:
        """The same of data of another name."""
        return replace(self, dataset_name=dataset_name)


class TokenPass:
    """The tokens of one pass that count: those of the text, and of labels rather than guesses.

    Args:
        key: Which pass.
        rows: Its rows, of `NEEDED` columns and others.
    """

    def __init__(self, key: PassKey, rows: pa.Table) -> None:
        self.key = key
        self.all_rows = rows
        self.rows = rows.filter(_counts(rows))

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of the tokens that count."""
        return self.rows[name]

    @cached_property
    def example(self) -> Ints:
        """The example of each token: (n,)."""
        return _ints(self.rows["example_num"])

    @cached_property
    def word(self) -> Ints:
        """The number of its word in the text, -1 where it is in none: (n,)."""
        return _ints(self.rows["word_num"])

    @cached_property
    def bits(self) -> Floats:
        """What each token costs, NaN where nothing predicts it: (n,)."""
        found: Floats = self.rows["surprisal"].cast(pa.float64()).to_numpy()
        return found

    @cached_property
    def is_scored(self) -> npt.NDArray[np.bool_]:
        """Whether it has a cost that is a number: (n,)."""
        return np.isfinite(self.bits)


def token_passes(
    path: Path, texts: Sequence[str] = (), numbers: Sequence[str] = ()
) -> Iterator[TokenPass]:
    """Read a table of tokens, a pass over a data set at a time.

    Memory is that of the largest pass. A table of a run that was killed is read as far as it is
    whole.

    Args:
        path: A ``.csv.gz`` file that a run has written.
        texts: More columns that are wanted, as far as they are there, as text whatever they have.
        numbers: More of them that have numbers.
    """
    key: PassKey | None = None
    parts: list[pa.Table] = []
    for piece in table_pieces(path, [*NEEDED, *texts, *numbers], texts):
        for this, rows in _split(piece):
            if this != key:
                if key is not None:
                    yield TokenPass(key, _together(parts))
                key, parts = this, []
            parts.append(rows)
    if key is not None:
        yield TokenPass(key, _together(parts))


def loss_columns(names: Sequence[str]) -> list[str]:
    """The names of the losses in a table: what was minimised, and each part of it."""
    names = list(names)
    return names[names.index(LOSS) : names.index("lr")] if LOSS in names else []


def _together(parts: Sequence[pa.Table]) -> pa.Table:
    if len(parts) == 1:
        return parts[0]
    # A column without a value in one piece may have got another type there.
    return pa.concat_tables(parts, promote_options="permissive")


def in_mode(dataset_name: str, mode: str | None) -> str:
    """What data are called in one of two modes of a model."""
    return dataset_name if mode is None else f"{dataset_name} ({mode})"


def _split(rows: pa.Table) -> Iterator[tuple[PassKey, pa.Table]]:
    """The rows of each pass, which follow one another."""
    if not len(rows):
        return
    wanted = (*_KEYS, MODE) if has_modes(rows.column_names) else _KEYS
    names = [name for name in wanted if name in rows.column_names]
    codes = np.stack([_codes(rows[name]) for name in names])
    begins = [0, *(np.flatnonzero(np.any(codes[:, 1:] != codes[:, :-1], axis=0)) + 1), len(rows)]
    for begin, end in itertools.pairwise(begins):
        part = rows.slice(begin, end - begin)
        first: dict[str, Any] = part.select(names).slice(0, 1).to_pylist()[0]
        key = PassKey(**first)
        yield key.called(in_mode(key.dataset_name, key.mode)), part


def _codes(values: pa.ChunkedArray) -> Ints:
    """A number for each value, the same for equal ones: (n,)."""
    encoded = values.combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    found: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def codes_and_values(values: pa.ChunkedArray) -> tuple[Ints, list[Any]]:
    """Each value's number, (n,), and the values by number."""
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    encoded = array.dictionary_encode(null_encoding="encode")
    codes: Ints = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _ints(values: pa.ChunkedArray) -> Ints:
    found: Ints = values.cast(pa.int64()).fill_null(-1).to_numpy()
    return found


def _counts(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows are tokens of the text."""
    if "is_target" not in rows.column_names:  # a table of 0.1.0
        return pc.is_valid(rows["surprisal"])
    kept = rows["is_target"].cast(pa.bool_()).fill_null(False)
    if SEQUENCE_TYPE in rows.column_names:
        kept = pc.and_(kept, pc.equal(rows[SEQUENCE_TYPE], LABEL_SEQUENCE).fill_null(False))
    return kept
