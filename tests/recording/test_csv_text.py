"""Booleans as R knows them, whatever stands beside them."""

from __future__ import annotations

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.recording import csv_text as csv_text_module
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.recording.shared_rows import Columns, Rows

TEXTS = ["true", 'say "TRUE",FALSE', "line\nfeed", "ÿ", "\u2028", "", "NA", None]
BOOLEANS = [True, False, None, True, None, False, False, True]


@pytest.mark.parametrize("order", [("word", "is", "has"), ("is", "word", "has"), ("is", "has")])
@pytest.mark.parametrize("header", [True, False])
def test_booleans_are_true_and_false_in_capitals(order, header):
    columns = {
        "word": pa.array(TEXTS, pa.string()),
        "is": pa.array(BOOLEANS),
        "has": pa.array([None, *BOOLEANS[1:]]),
    }
    text = csv_text(pa.table({name: columns[name] for name in order}), header=header)
    lines = list(csv.reader(io.StringIO(text.decode(), newline="")))
    assert lines[: int(header)] == [list(order)][: int(header)]
    capitals = {True: "TRUE", False: "FALSE", None: "NA"}
    for place, name in enumerate(order):
        expected = [
            value if name == "word" and value is not None else capitals.get(value)
            for value in columns[name].to_pylist()
        ]
        assert [line[place] for line in lines[int(header) :]] == expected


def test_only_text_is_quoted():
    table = pa.table({"a": ["NA", None], "b": [True, False], "c": [1, None], "d": [None, 0.5]})
    assert csv_text(table) == b'"a","b","c","d"\n"NA",TRUE,1,NA\nNA,FALSE,NA,0.5\n'


def test_a_table_without_rows_and_one_in_pieces():
    empty = pa.table({"is": pa.array([], pa.bool_())})
    assert csv_text(empty) == b'"is"\n'
    assert csv_text(empty, header=False) == b""
    pieces = pa.concat_tables([empty, pa.table({"is": [True]}), pa.table({"is": [False, True]})])
    assert csv_text(pieces, header=False) == b"TRUE\nFALSE\nTRUE\n"


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANY_VALUES = {
    pa.string(): st.none() | ANY_TEXT | st.sampled_from(['"', 'a"",\n', "NA", "true"]),
    pa.large_string(): st.none() | ANY_TEXT,
    pa.int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
    pa.int8(): st.none() | st.integers(-128, 127),
    pa.float32(): st.none() | st.floats(width=32),
    pa.float64(): st.none() | st.floats(),
    pa.null(): st.none(),
}


@given(st.data(), st.lists(st.sampled_from(list(ANY_VALUES)), min_size=1), st.integers(0, 9))
def test_what_has_no_booleans_is_as_pyarrow_writes_it(data, kinds, n):
    table = pa.table(
        [
            pa.array(data.draw(st.lists(ANY_VALUES[kind], min_size=n, max_size=n)), kind)
            for kind in kinds
        ],
        [f'column "{i}"' for i in range(len(kinds))],
    )
    out = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table, out, pyarrow.csv.WriteOptions(null_string="NA"))
    assert csv_text(table) == out.getvalue().to_pybytes()


@given(st.data(), st.sampled_from([0, 1, 5]), st.sampled_from([1, 30, 10_000]))
def test_rows_that_share_values_are_those_of_their_table(data, n, at_once):
    """Of values of values, kept and not, in any order, and made in parts."""

    def places(n_values):
        return np.array(data.draw(st.lists(st.integers(0, n_values - 1), min_size=n, max_size=n)))

    texts = pa.array(["a", None, 'say "so"'])
    inner = Rows(
        [
            (Columns({"word": texts, "num": pa.array([1, None, 3])}, is_kept=True), None),
            (Columns({"one": pa.array(["x"])}), np.zeros(3, dtype=np.int64)),
        ]
    )
    rows = Rows(
        [
            (inner, places(3).astype(np.int64)),
            (Columns({"is": pa.array([True, False, None])}), places(3).astype(np.int64)),
            (Columns({"kept": texts}, is_kept=True), places(3).astype(np.int64)),
            (Columns({"own": pa.array(range(n), pa.int64())}), None),
        ]
    )
    names = data.draw(st.permutations(["word", "num", "one", "is", "own", "kept"]))
    rows = rows.select(names[: data.draw(st.integers(1, 6))])
    assert len(rows) == n
    expected = csv_text(Rows.of(rows.table))
    for _ in range(2):  # with what is kept, too
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_text_module, "_AT_ONCE", at_once)
            assert csv_text(rows) == expected


@pytest.mark.parametrize("n_letters", [0, 1, 7, 2**15 - 10, 2**15 - 6, 2**15 - 5, 2**15, 70_000])
def test_long_texts(n_letters):
    table = pa.table({"a": [True, None], "word": ["t" * n_letters, "x"], "b": [False, True]})
    expected = f'TRUE,"{"t" * n_letters}",FALSE\nNA,"x",TRUE\n'
    assert csv_text(table, header=False).decode() == expected
    many = pa.table({"a": [True, False, None] * 7_001})
    assert csv_text(many, header=False) == b"TRUE\nFALSE\nNA\n" * 7_001


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["true", "false", ",", "\n", '"', "t", "fals"])).map("".join),
            st.none() | st.booleans(),
            st.none() | st.booleans(),
        ),
        min_size=1,
    ),
    st.booleans(),
)
def test_words_of_a_text_that_look_like_cells_stay_as_they_are(rows, is_last):
    texts, ones, others = map(list, zip(*rows, strict=True))
    columns = {"is,true,": pa.array(ones, pa.bool_()), "has": pa.array(others, pa.bool_())}
    text = {"word": pa.array(texts, pa.string())}
    found = csv_text(pa.table({**columns, **text} if is_last else {**text, **columns}))
    lines = list(csv.reader(io.StringIO(found.decode(), newline="")))[1:]
    capitals = {True: "TRUE", False: "FALSE", None: "NA"}
    expected = [[capitals[one], capitals[other]] for one, other in zip(ones, others, strict=True)]
    assert lines == [
        [*cells, word] if is_last else [word, *cells]
        for cells, word in zip(expected, texts, strict=True)
    ]


@given(st.lists(st.tuples(ANY_TEXT, st.none() | st.booleans(), ANY_TEXT), min_size=1))
def test_any_text_beside_any_boolean(rows):
    before, middle, behind = map(list, zip(*rows, strict=True))
    texts = pa.array(before, pa.string()), pa.array(behind, pa.string())
    found = csv_text(pa.table([texts[0], pa.array(middle, pa.bool_()), texts[1]], ["a", "b", "c"]))

    def quoted(text):
        return '"' + text.replace('"', '""') + '"'

    capitals = {True: "TRUE", False: "FALSE", None: "NA"}
    lines = [f"{quoted(a)},{capitals[b]},{quoted(c)}\n" for a, b, c in rows]
    assert found.decode() == "".join(['"a","b","c"\n', *lines])
