"""Reading data files. What is said of bad ones is in `bad_data.py`."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data.examples import dataset_name, distinct_names
from finetune_lm.data.reading_examples import read_examples
from finetune_lm.errors import UserError


def write(path, data: str | bytes):
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
@pytest.mark.parametrize("end", ["", "\n"], ids=["no newline at the end", "newline at the end"])
def test_text_lines(tmp_path, suffix, end):
    path = write(tmp_path / f"a.b{suffix}", "One two.\nThree." + end)
    examples = read_examples(path)
    assert examples.texts == ["One two.", "Three."]
    assert examples.labels is None
    assert examples.metadata == [{}, {}]
    assert examples.name == "a.b"


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl", ".jsonl.gz"])
def test_json_lines(tmp_path, suffix):
    lines = [{"text": "a [MASK]", "labels": "a b"}, {"text": "[MASK] c", "labels": "d c"}]
    path = write(tmp_path / f"x{suffix}", "\n".join(map(json.dumps, lines)))
    examples = read_examples(path)
    assert examples.texts == ["a [MASK]", "[MASK] c"]
    assert examples.labels == ["a b", "d c"]


@pytest.mark.parametrize("suffix", [".json.gz", ".json", ".jsonl", ".jsonl.gz"])
def test_metadata_beside_the_data(tmp_path, suffix):
    path = write(tmp_path / "x.txt.gz", "a\nb\n")
    write(tmp_path / f"x_metadata{suffix}", '{"k": 1}\n{"k": [2]}\n')
    assert read_examples(path).metadata == [{"k": 1}, {"k": [2]}]


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = write(tmp_path / "x.txt", "\ufeffOne.\r\nTwo.\r\n".encode())
    assert read_examples(path).texts == ["One.", "Two."]


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = write(tmp_path / "x.txt", "a\u2028b\x0bc\x85d\n")
    assert read_examples(path).texts == ["a\u2028b\x0bc\x85d"]


def test_thousands_of_lines_are_counted_right(tmp_path):
    path = write(tmp_path / "x.txt.gz", "\n".join(f"line {i}" for i in range(12_345)))
    assert len(read_examples(path)) == 12_345


def test_max_samples_cuts_everything_alike(tmp_path):
    path = write(
        tmp_path / "x.json", "".join(f'{{"text": "t{i}", "labels": "l"}}\n' for i in "012")
    )
    write(tmp_path / "x_metadata.json", '{"i": 0}\n{"i": 1}\n{"i": 2}\n')
    two = read_examples(path, max_samples=2)
    assert (two.texts, two.labels) == (["t0", "t1"], ["l", "l"])
    assert two.metadata == [{"i": 0}, {"i": 1}]
    assert len(read_examples(path, max_samples=99)) == 3


def test_dataset_name():
    assert dataset_name("a/b/x.y.txt.gz") == "x.y"
    assert dataset_name("x.jsonl") == "x"


def test_metadata_is_checked_before_it_is_cut(tmp_path):
    path = write(tmp_path / "x.txt.gz", "a\nb\n")
    write(tmp_path / "x_metadata.json.gz", "{}\n")
    with pytest.raises(UserError, match="one line for each line"):
        read_examples(path, max_samples=1)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")).filter(
            lambda text: text.strip() and not text.startswith("\ufeff")
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_comes_back_as_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("data") / "x.txt.gz"
    assert read_examples(write(path, "\n".join(texts))).texts == texts


def test_names_of_test_files_are_distinct(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.txt", "a.json", "b.txt")]
    assert distinct_names(paths) == [*paths[:2], "b"]
    with pytest.raises(UserError, match=r"must be given once but .*b.txt is given 2 times"):
        distinct_names([paths[2], str(tmp_path / "x" / ".." / "b.txt")])
