"""Tables grow by whole pieces, read back as they were, and read with no options elsewhere."""

from __future__ import annotations

import csv
import gzip
import string
import zlib
from dataclasses import asdict
from itertools import islice, product

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.errors import UserError
from finetune_lm.recording import tables
from finetune_lm.recording.tables import TableWriter, load_metrics
from finetune_lm.training.checkpoints import unkept

COLUMNS = ["word", "epoch", "surprisal", "token_is_word", "note"]


def rows(epoch, words, notes=None):
    return pa.table(
        {
            "word": pa.array(words, pa.string()),
            "epoch": pa.array([epoch] * len(words)),
            "surprisal": pa.array([1.5] * len(words), pa.float32()),
            "token_is_word": pa.array([True] * len(words)),
            "note": pa.array(["007"] * len(words) if notes is None else notes, pa.string()),
        }
    )


def write(path, *pieces):
    with TableWriter(path, COLUMNS) as writer:
        for piece in pieces:
            writer.write(piece)
            writer.end_piece()
    return path


def test_one_gzip_member_a_piece(tmp_path):
    path = tmp_path / "t.csv.gz"
    with TableWriter(path, COLUMNS) as writer:
        sizes = []
        for epoch in range(3):
            writer.write(rows(epoch, ["a"]))
            writer.write(rows(epoch, ["b"]))
            writer.end_piece()
            sizes.append(path.stat().st_size)
            # Whole and readable after each, by anything that reads gzipped CSV files.
            assert len(pd.read_csv(path)) == 2 * (epoch + 1)
    assert path.read_bytes().count(b"\x1f\x8b\x08") == 3
    assert sizes == sorted(set(sizes))
    assert load_metrics(path)["epoch"].tolist() == [0, 0, 1, 1, 2, 2]


def test_header_is_there_once(tmp_path):
    path = write(tmp_path / "t.csv.gz", rows(0, ["a"]), rows(1, ["b"]))
    text = gzip.decompress(path.read_bytes()).decode()
    assert text.splitlines()[0] == ",".join(f'"{c}"' for c in COLUMNS)
    assert text.count("surprisal") == 1


@pytest.mark.parametrize("n_lost", [1, 10, 40])
def test_a_last_piece_that_is_cut_off_is_left_out(tmp_path, n_lost):
    path = write(tmp_path / "t.csv.gz", rows(0, ["a", "b"]), rows(1, ["c"]))
    path.write_bytes(path.read_bytes()[:-n_lost])
    assert load_metrics(path)["word"].tolist() == ["a", "b"]


def test_an_unfinished_piece_is_kept_when_the_run_ends_in_an_error(tmp_path):
    path = tmp_path / "t.csv.gz"
    with pytest.raises(RuntimeError), TableWriter(path, COLUMNS) as writer:  # noqa: PT012
        writer.write(rows(0, ["a"]))
        writer.end_piece()
        writer.write(rows(1, ["b"]))
        raise RuntimeError
    assert load_metrics(path)["word"].tolist() == ["a", "b"]


def test_equal_tables_are_equal_files(tmp_path):
    first = write(tmp_path / "a.csv.gz", rows(0, ["a"])).read_bytes()
    assert write(tmp_path / "b.csv.gz", rows(0, ["a"])).read_bytes() == first


def test_the_bytes_do_not_depend_on_where_the_compressor_lies():
    """ISA-L's do by themselves: at each address for some texts, one in some thousands."""
    for letters in islice(product(string.ascii_letters, repeat=4), 0, None, 250):
        text = ("".join(letters) + ",the author eats\n").encode() * 25
        at_two_addresses = [tables._compressor() for _ in range(2)]
        files = {each.compress(text) + each.flush() for each in at_two_addresses}
        assert len(files) == 1, letters
        assert gzip.decompress(files.pop()) == text


def test_never_over_another_table(tmp_path):
    write(tmp_path / "t.csv.gz", rows(0, ["a"]))
    with pytest.raises(FileExistsError):
        TableWriter(tmp_path / "t.csv.gz", COLUMNS)


WORDS = [
    "NA",
    None,
    'say "so"',
    "a,b",
    "line\nfeed",
    "carriage\r\nreturn",
    "½ 😀",
    "",
    "None",
    "nan",
]


def test_any_word_comes_back(tmp_path):
    back = load_metrics(write(tmp_path / "t.csv.gz", rows(0, WORDS)))["word"]
    assert [None if pd.isna(word) else word for word in back] == WORDS


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1)
)
def test_any_text_comes_back(tmp_path_factory, words):
    path = tmp_path_factory.mktemp("t") / "t.csv.gz"
    assert load_metrics(write(path, rows(0, words)))["word"].tolist() == words


def test_types(tmp_path):
    table = rows(0, ["1", "2", None])
    table = table.set_column(1, "epoch", pa.array([1, None, 3]))
    table = table.set_column(3, "token_is_word", pa.array([True, None, False]))
    back = load_metrics(write(tmp_path / "t.csv.gz", table))
    assert pd.api.types.is_string_dtype(back["word"])
    assert back["word"].tolist()[:2] == ["1", "2"]
    assert back["epoch"].dtype == pd.Int64Dtype()
    assert back["epoch"].isna().tolist() == [False, True, False]
    assert back["surprisal"].dtype == float
    assert back["token_is_word"].dtype == pd.BooleanDtype()
    place = table.column_names.index("note")
    nothing = table.set_column(place, "note", pa.nulls(3, table["note"].type))
    means = load_metrics(write(tmp_path / "n.csv.gz", nothing)).groupby("epoch")["note"].mean()
    assert means.dtype == float
    assert means.isna().all()
    # Text that looks like numbers stays text.
    assert back["note"].tolist() == ["007"] * 3


def test_plain_csv_for_readers_with_no_options(tmp_path):
    path = write(tmp_path / "t.csv.gz", rows(0, ["a", None]), rows(1, ["b"]))
    frame = pd.read_csv(path)
    assert frame["word"].isna().tolist() == [False, True, False]
    assert frame["surprisal"].tolist() == [1.5] * 3
    assert frame["token_is_word"].all()
    with gzip.open(path, "rt", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[2] == ["NA", "0", "1.5", "TRUE", "007"]


def test_directory_of_a_run(tmp_path):
    write(tmp_path / "metrics.csv.gz", rows(0, ["a"]))
    assert len(load_metrics(tmp_path)) == 1


def test_no_table(tmp_path):
    with pytest.raises(UserError, match="there is no table"):
        load_metrics(tmp_path)
    (tmp_path / "x.csv.gz").write_text("plain")
    with pytest.raises(UserError, match="is not a gzipped table"):
        load_metrics(tmp_path / "x.csv.gz")


def test_memory_does_not_grow_with_pieces(tmp_path):
    """Nothing of a finished piece is kept: counted by what the writer holds on to."""
    with TableWriter(tmp_path / "t.csv.gz", COLUMNS) as writer:
        for epoch in range(5):
            writer.write(rows(epoch, ["a"] * 100))
            writer.end_piece()
            assert writer._piece is None
        assert writer.n_rows == 500


def test_a_piece_that_cannot_be_appended_leaves_the_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "t.csv.gz"
    with TableWriter(path, COLUMNS) as writer:
        writer.write(rows(0, ["a"]))
        writer.end_piece()
        before = path.read_bytes()
        writer.write(rows(1, ["b"]))
        monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            writer.end_piece()
        monkeypatch.undo()
        assert path.read_bytes() == before
        writer.write(rows(2, ["c"]))
    assert load_metrics(path)["word"].tolist() == ["a", "c"]


def test_text_that_comes_late_in_a_table_stays_text(tmp_path):
    first = rows(0, ["a"] * 20_000, [None] * 20_000)
    second = rows(1, ["b"] * 20_000, [None] * 19_999 + ["001"])
    back = load_metrics(write(tmp_path / "t.csv.gz", first, second))
    assert back["note"].iloc[-1] == "001"


@pytest.fixture(params=[(zlib, 1), (zlib, 150), (tables.compression, 150), (zlib, 2**20)])
def compression(request, monkeypatch):
    """The library, and the text that it gets at a time: each write's, more of them, all."""
    library, chunk = request.param
    monkeypatch.setattr(tables, "compression", library)
    monkeypatch.setattr(tables, "_CHUNK", chunk)
    return library


def unbroken(path, n_pieces, n_writes):
    with TableWriter(path, COLUMNS) as writer:
        for piece in range(n_pieces):
            for number in range(n_writes):
                writer.write(rows(piece, WORDS[:5] * (1 + number)))
            writer.end_piece()
    return path.read_bytes()


@pytest.mark.parametrize("piece", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.usefixtures("compression")
def test_a_table_is_taken_up_in_the_middle_of_a_piece(tmp_path, piece, number):
    """The state is taken after some writes; what is written after it is cut off and redone."""
    whole = unbroken(tmp_path / "whole.csv.gz", 3, 3)
    path = tmp_path / "parts.csv.gz"
    taken = None
    with pytest.raises(RuntimeError), TableWriter(path, COLUMNS) as writer:  # noqa: PT012
        for p in range(3):
            for n in range(3):
                writer.write(rows(p, WORDS[:5] * (1 + n)))
                if (p, n) == (piece, number):
                    taken = writer.state()
                    n_rows = writer.n_rows
            writer.end_piece()
            if taken is not None:
                writer.write(rows(9, ["killed"]))
                raise RuntimeError
    assert unkept(asdict(taken)) is None
    with TableWriter(path, COLUMNS, taken) as writer:
        assert writer.n_rows == n_rows
        for n in range(number + 1, 3):
            writer.write(rows(piece, WORDS[:5] * (1 + n)))
        writer.end_piece()
        for p in range(piece + 1, 3):
            for n in range(3):
                writer.write(rows(p, WORDS[:5] * (1 + n)))
            writer.end_piece()
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("compression")
def test_taking_the_state_changes_nothing(tmp_path):
    whole = unbroken(tmp_path / "whole.csv.gz", 2, 3)
    path = tmp_path / "watched.csv.gz"
    with TableWriter(path, COLUMNS) as writer:
        for piece in range(2):
            for number in range(3):
                writer.state()
                writer.write(rows(piece, WORDS[:5] * (1 + number)))
                writer.state()
            writer.end_piece()
            assert writer.state().piece is writer.state().text is None
            assert writer.state().n_bytes == path.stat().st_size
    assert path.read_bytes() == whole


def test_an_epoch_without_rows_leaves_the_table_as_it_is(tmp_path):
    path = write(tmp_path / "t.csv.gz", rows(0, ["a"]))
    before = path.read_bytes()
    with TableWriter(tmp_path / "more.csv.gz", COLUMNS) as writer:
        for words in (["a"], []):
            writer.write(rows(0, words))
            assert unkept(asdict(writer.state())) is None
            writer.end_piece()
    assert (tmp_path / "more.csv.gz").read_bytes() == before


@pytest.mark.parametrize("n_chunks", [0, 1, 2])
def test_a_table_may_be_taken_up_on_another_machine(tmp_path, monkeypatch, n_chunks):
    """One for which the library that compresses fast is not built."""
    path = tmp_path / "t.csv.gz"
    monkeypatch.setattr(tables, "_CHUNK", 1)
    with TableWriter(path, COLUMNS) as writer:
        for n in range(n_chunks):
            writer.write(rows(0, [f"w{n}"]))
        monkeypatch.setattr(tables, "_CHUNK", 2**20)
        writer.write(rows(0, ["waits"]))
        state = writer.state()
    monkeypatch.setattr(tables, "compression", zlib)
    path.unlink()
    with TableWriter(path, COLUMNS, state) as writer:
        writer.write(rows(0, ["new"]))
    expected = [*(f"w{n}" for n in range(n_chunks)), "waits", "new"]
    assert load_metrics(path)["word"].tolist() == expected
    assert pd.read_csv(path)["word"].tolist() == expected


@pytest.mark.parametrize("damage", ["shorter", "other", "gone"])
def test_a_table_that_is_not_what_was_written_is_not_taken_up(tmp_path, damage):
    path = write(tmp_path / "t.csv.gz", rows(0, ["a"]))
    with TableWriter(tmp_path / "other.csv.gz", COLUMNS) as writer:
        writer.write(rows(0, ["a"]))
        writer.end_piece()
        state = writer.state()
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-1] + (b"" if damage == "shorter" else b"x"))
        content = path.read_bytes()
    with pytest.raises(UserError, match=r"must begin with the .* bytes that the run had written"):
        TableWriter(path, COLUMNS, state)
    assert not path.exists() or path.read_bytes() == content


def test_a_piece_with_half_a_chunk_is_thrown_away(tmp_path, monkeypatch):
    """What a second Ctrl-C or a full disk leaves: whole pieces, nothing that cannot be read."""
    path = tmp_path / "t.csv.gz"
    monkeypatch.setattr(tables, "_CHUNK", 1)

    class Stopped(BaseException):
        pass

    with pytest.raises(Stopped), TableWriter(path, COLUMNS) as writer:  # noqa: PT012
        writer.write(rows(0, ["a"]))
        writer.end_piece()
        writer.write(rows(1, ["b"]))

        def stop(_):
            raise Stopped

        monkeypatch.setattr(writer._piece, "write", stop)
        writer.write(rows(1, ["c"]))
    assert pd.read_csv(path)["word"].tolist() == ["a"]


def test_a_chunk_is_in_the_piece_once_also_if_it_is_the_last(tmp_path, monkeypatch):
    """What a second Ctrl-C right behind a chunk leaves."""
    path = tmp_path / "t.csv.gz"
    monkeypatch.setattr(tables, "_CHUNK", 1)
    with pytest.raises(KeyboardInterrupt), TableWriter(path, COLUMNS) as writer:  # noqa: PT012
        compress = writer._compress

        def stop(chunk, rest):
            compress(chunk, rest)
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "_compress", stop)
        writer.write(rows(0, ["a"]))
    assert pd.read_csv(path)["word"].tolist() == ["a"]


def test_the_bytes_do_not_depend_on_how_many_rows_come_together(tmp_path):
    words = [f"w{n}" * 40 for n in range(60_000)]
    files = []
    for name, size in (("a", 60_000), ("b", 7_001)):
        with TableWriter(tmp_path / name, COLUMNS) as writer:
            for begin in range(0, len(words), size):
                writer.write(rows(0, words[begin : begin + size]))
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) > 100_000


def test_a_very_long_text_without_commas_is_read_back(tmp_path):
    """Its end is far beyond what is looked at to tell text from numbers."""
    path = tmp_path / "t.csv.gz"
    long = "word" * 100_000
    with TableWriter(path, ["word", "surprisal"]) as writer:
        writer.write(pa.table({"word": [long, "12"], "surprisal": [1.5, 2.5]}))
    table = load_metrics(path)
    assert table["word"].tolist() == [long, "12"]
    assert table["surprisal"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
def test_a_table_that_another_program_changes_meanwhile(tmp_path, change):
    path = tmp_path / "t.csv.gz"
    with TableWriter(path, COLUMNS) as writer:
        writer.write(rows(0, ["a"]))
        writer.end_piece()
        content = path.read_bytes()
        changed = {"shorter": content[:-1], "longer": content + b"x", "empty": b""}[change]
        path.write_bytes(changed)
        writer.write(rows(1, ["b"]))
        with pytest.raises(UserError, match="bytes that were written into it but has"):
            writer.end_piece()
    assert path.read_bytes() == changed
