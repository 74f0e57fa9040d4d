"""Booleans as R knows them, whatever stands beside them."""

from __future__ import annotations

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.recording.csv_text import csv_text

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


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


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
