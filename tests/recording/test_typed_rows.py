"""Whoever reads a table, whole, by pieces or by blocks, finds the values and types written."""

from __future__ import annotations

import gzip
import math
import zlib
from itertools import accumulate

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_lm.errors import UserError
from finetune_lm.grids.table_types import Types, pieces_of
from finetune_lm.recording import table_text, typed_rows
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.recording.table_text import TableText
from finetune_lm.recording.tables import TableWriter, load_metrics
from finetune_lm.recording.typed_rows import TypedRows, table_pieces

HOSTILE = [
    *(
        "NA",
        "",
        "TRUE",
        "FALSE",
        "true",
        "1",
        "007",
        "-0",
        "1e5",
        "1.0",
        "nan",
        "inf",
        "2020-01-01",
    ),
    *(
        'say "so"',
        '"',
        '""',
        '","',
        ",",
        "\n",
        "a\nb",
        '"\n',
        "\r\n",
        "12:30",
        "2020-01-01",
        "½ 😀",
    ),
]
TEXT = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5
)
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, 0.1, -2.5, 1e20, 1e-7, math.inf]) | st.floats(
    allow_nan=False, width=32
)
COLUMNS = {
    "token": (pa.string(), TEXT),
    "token_id": (pa.int64(), st.integers(0, 50_000)),
    "is_target": (pa.bool_(), st.booleans()),
    "surprisal": (pa.float32(), NUMBERS),
    'a "key",\nof metadata': (pa.string(), TEXT),
    "item": (pa.string(), st.sampled_from(HOSTILE)),
    "truth": (pa.bool_(), st.booleans()),
    "count": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "number": (pa.float64(), NUMBERS | st.floats(allow_nan=False)),
    "nothing": (pa.string(), st.none()),
}


@st.composite
def tables(draw):
    """Pieces of a table: columns of all types, in which values begin late or are missing."""
    n = draw(st.integers(1, 12))
    columns = {}
    for name, (kind, values) in COLUMNS.items():
        n_missing = draw(st.integers(0, n))
        rest = draw(st.lists(values | st.none(), min_size=n - n_missing, max_size=n - n_missing))
        columns[name] = pa.array([None] * n_missing + rest, kind)
    rows = pa.table(columns)
    begins = sorted({0, *draw(st.lists(st.integers(0, n - 1), max_size=4))})
    ends = [*begins[1:], n]
    return [rows.slice(begin, end - begin) for begin, end in zip(begins, ends, strict=True)]


def cells(rows):
    """The values of each column, None where one is missing; of float32 the number that is shown."""
    if isinstance(rows, pa.Table):
        shown = rows.schema.get_field_index("surprisal")
        texts = [None if v is None else str(np.float32(v)) for v in rows["surprisal"].to_pylist()]
        rows = rows.set_column(shown, "surprisal", pa.array([t and float(t) for t in texts]))
        return rows.to_pydict()
    return {
        name: [None if pd.isna(value) else value for value in rows[name].tolist()] for name in rows
    }


def assert_proper(schema, written):
    """Text is text, and what is no text is none."""
    for name, kind in zip(schema.names, schema.types, strict=True):
        is_text = pa.types.is_string(written.schema.field(name).type)
        if any(value is not None for value in written[name].to_pylist()):
            assert pa.types.is_string(kind) == is_text, name


def written(directory, pieces):
    path = directory / "t.csv.gz"
    with TableWriter(path, pieces[0].column_names) as writer:
        for rows in pieces:
            writer.write(rows)
            writer.end_piece()
    return path


@settings(max_examples=30)
@given(tables(), st.sampled_from([1, 40, 300, 2**23]), st.sampled_from([1, 100, 2**16]))
def test_every_way_of_reading_gives_what_was_written(tmp_path_factory, pieces, block, beginning):
    path = written(tmp_path_factory.mktemp("t"), pieces)
    whole = pa.concat_tables(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_text, "_BLOCK", block)
        patch.setattr(typed_rows, "_BEGINNING", beginning)
        assert cells(load_metrics(path)) == cells(whole)
        for read, rows in zip(table_pieces(path), pieces, strict=True):
            assert read.to_pydict() == cells(rows)
            assert_proper(read.schema, rows)
        some = ["number", "count", "token"]
        for read, rows in zip(table_pieces(path, some, ["count"]), pieces, strict=True):
            assert read.column_names == ["token", "count", "number"]
            assert read["count"].to_pylist() == rows["count"].cast(pa.string()).to_pylist()
        assert by_blocks(path) == [csv_text(rows, header=False) for rows in pieces]
        types = Types()
        types.take_in(path)
        assert cells(pa.concat_tables(pieces_of(path, types))) == cells(whole)
        assert_proper(pa.schema(types.fields()), whole)


@settings(max_examples=30)
@given(tables(), st.floats(0, 1), st.sampled_from([1, 300, 2**23]))
def test_a_piece_that_is_cut_off_is_read_by_nobody(tmp_path_factory, pieces, share, block):
    path = written(tmp_path_factory.mktemp("t"), pieces)
    content = path.read_bytes()
    ends = list(accumulate(len(each) for each in members(content)))
    n_bytes = int(share * (len(content) - 1))
    path.write_bytes(content[:n_bytes])
    whole = pieces[: sum(end <= n_bytes for end in ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_text, "_BLOCK", block)
        assert [each.to_pydict() for each in table_pieces(path)] == list(map(cells, whole))
        assert by_blocks(path) == [csv_text(rows, header=False) for rows in whole]
        columns = list(COLUMNS) if whole else []
        for bounded in (False, True):
            assert TableText(path, bounded=bounded).columns == columns
        expected = cells(pa.concat_tables(whole)) if whole else {}
        assert cells(load_metrics(path)) == expected


def by_blocks(path):
    """The text of each piece, written again from blocks of bounded size."""
    source = TableText(path, bounded=True)
    reader = TypedRows(source.columns)
    parts = [(number, reader.plain(text)) for number, text in source.parts()]
    texts = [b""] * len({number for number, _ in parts})
    for number, rows in parts:
        texts[number] += csv_text(reader.as_written(rows), header=False)
    return texts


def members(content):
    """The gzip members of a file, each as it stands."""
    while content:
        decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        decompressor.decompress(content)
        end = len(content) - len(decompressor.unused_data)
        yield content[:end]
        content = content[end:]


def test_what_is_no_table(tmp_path):
    path = tmp_path / "t.csv.gz"
    with pytest.raises(UserError, match="there is no table"):
        TableText(path).columns  # noqa: B018
    path.write_bytes(b"no table")
    for read in (load_metrics, lambda path: list(table_pieces(path)), by_blocks):
        with pytest.raises(UserError, match=r"t\.csv\.gz is not a gzipped table"):
            read(path)
    path.write_bytes(gzip.compress(b'"word","epoch"\n"so",1\n') + b"what another program wrote")
    for read in (load_metrics, lambda path: next(table_pieces(path)).to_pandas()):
        assert read(path).to_dict("list") == {"word": ["so"], "epoch": [1]}
    assert by_blocks(path) == [b'"so",1\n']


def test_text_that_begins_late_stays_text(tmp_path):
    """Far from both ends of a table of many pieces."""
    texts = [["001"] * 3 if number == 60 else [None] * 3 for number in range(80)]
    late = [pa.table({"epoch": [0] * 3, "code": pa.array(each, pa.string())}) for each in texts]
    path = written(tmp_path, late)
    assert load_metrics(path)["code"].dropna().tolist() == ["001"] * 3
