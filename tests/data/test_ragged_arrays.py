from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data.ragged_arrays import Ragged

sequences = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=6)


@given(sequences, st.data())
def test_padding_keeps_every_sequence(rows, data):
    ragged = Ragged.of(rows)
    order = data.draw(st.permutations(range(len(rows))))
    padded = ragged.padded(np.array(order), fill=-1)
    assert padded.shape == (len(rows), max(map(len, rows)))
    for row, i in zip(padded, order, strict=True):
        assert row.tolist() == rows[i] + [-1] * (padded.shape[1] - len(rows[i]))


@given(sequences)
def test_selection(rows):
    selected = Ragged.of(rows).select(np.array([0, 0, len(rows) - 1]))
    assert [selected[i].tolist() for i in range(3)] == [rows[0], rows[0], rows[-1]]


def test_given_width():
    padded = Ragged.of([[1, 2], [3]]).padded(np.array([1]), fill=0, length=4)
    assert padded.tolist() == [[3, 0, 0, 0]]


@given(sequences, st.integers(1, 4), st.data())
def test_all_ways_to_make_one(rows, size, data):
    ragged = Ragged.of(rows)
    chunks = [pa.array(rows[i : i + size], pa.list_(pa.int32())) for i in range(0, len(rows), size)]
    begin = data.draw(st.integers(0, len(rows) - 1))
    made = {
        "column": Ragged.of_column(pa.chunked_array(chunks)),
        "part of a column": Ragged.of_column(pa.chunked_array(chunks).slice(begin)),
        "padded": Ragged.of_padded(ragged.padded(np.arange(len(rows)), fill=-1), ragged.lengths),
        "joined": Ragged.joined([Ragged.of(rows[:begin]), Ragged.of(rows[begin:])]),
        "there and back": Ragged.of_column(pa.chunked_array([ragged.column(pa.int64())])),
    }
    for how, found in made.items():
        assert found.tolist() == (rows[begin:] if how.startswith("part") else rows), how
        assert found.values.dtype == found.starts.dtype == np.int64
    assert ragged.ones().tolist() == [[1] * len(row) for row in rows]
    assert Ragged.joined([]).tolist() == []
