"""Reading data files, and what is said of bad ones."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.data.files import dataset_name, distinct_names, read_examples
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


BAD_FILES = [
    ("x.txt", "", "must have at least one line"),
    ("x.txt.gz", "", "must have at least one line"),
    ("x.txt", "a\n\nb\n", "line 2: must not be blank"),
    ("x.txt", "a\n \t\n", "line 2: must not be blank"),
    ("x.txt", b"ok\nno \xff\xfe\n", "line 2: must be UTF-8"),
    ("x.csv", "a\n", "must end in one of"),
    ("x.json", "a\n", "line 1: must be JSON but is not"),
    ("x.json", '{"text": "a"}\n["b"]\n', "line 2: must be a JSON object"),
    ("x.json", '{"txt": "a"}\n', "line 1: an example must have the key 'text' but has 'txt'"),
    ("x.json", '{"text": 3}\n', "line 1: 'text' must be a string but got 3"),
    ("x.json", '{"text": " "}\n', "line 1: 'text' must not be blank"),
    (
        "x.json",
        '{"text": "a", "labels": null}\n',
        "line 1: 'labels' must be a string but got null",
    ),
    ("x.json", '{"text": "a"}\n\n{"text": "b"}\n', "line 2: must be a JSON object but is blank"),
    ("x.json", '{"text": "a", "text": "b"}\n', "key 'text' is given twice"),
    (
        "x.json",
        '{"text": "a"}\n{"text": "b", "labels": "c"}\n',
        "line 2 has them and line 1 has not",
    ),
    (
        "x.json",
        '{"text": "a", "labels": "c"}\n{"text": "b"}\n',
        "line 1 has them and line 2 has not",
    ),
    ("x.txt", "a\0b\n", "line 1: must be text but has a NUL"),
    ("x.json", '{"text": "a \\ud800"}\n', "line 1: 'text' must be text but has"),
    ("x.json", "[" * 100_000 + "\n", "line 1: "),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_bad_last_line_of_many(tmp_path):
    path = write(tmp_path / "x.json.gz", '{"text": "a"}\n' * 20_000 + "{")
    with pytest.raises(UserError, match="line 20001: must be JSON"):
        read_examples(path)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*nothing.txt.gz\."):
        read_examples(str(tmp_path / "nothing.txt.gz"))


def test_directory_as_a_file(tmp_path):
    (tmp_path / "d.txt.gz").mkdir()
    with pytest.raises(UserError, match="must be a file but is a directory"):
        read_examples(str(tmp_path / "d.txt.gz"))


def test_file_named_gz_that_is_not(tmp_path):
    (tmp_path / "x.txt.gz").write_text("plain\n")
    with pytest.raises(UserError, match="must be gzipped but"):
        read_examples(str(tmp_path / "x.txt.gz"))


def test_truncated_gzip(tmp_path):
    data = gzip.compress("\n".join(f"line {i}" for i in range(5000)).encode())
    (tmp_path / "x.txt.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        read_examples(str(tmp_path / "x.txt.gz"))


def test_symlink_loop(tmp_path):
    (tmp_path / "x.txt").symlink_to(tmp_path / "x.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_examples(str(tmp_path / "x.txt"))


@pytest.mark.parametrize("n", [1, 3])
def test_metadata_of_another_length(tmp_path, n):
    path = write(tmp_path / "x.txt.gz", "a\nb\n")
    write(tmp_path / "x_metadata.json.gz", "{}\n" * n)
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert f"has {n} and" in str(caught.value)
    assert "has 2." in str(caught.value)


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


@pytest.mark.parametrize("key", ["", " ", "a\\nb"])
def test_metadata_keys_that_cannot_be_columns(tmp_path, key):
    path = write(tmp_path / "x.txt", "a\n")
    write(tmp_path / "x_metadata.json", f'{{"{key}": 1}}\n')
    with pytest.raises(UserError, match=r"x_metadata.json, line 1: a key must be the name"):
        read_examples(path)


def test_a_name_that_is_too_long_for_a_file():
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        read_examples("x" * 300 + ".txt")


def test_names_of_test_files_are_distinct(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.txt", "a.json", "b.txt")]
    assert distinct_names(paths) == [*paths[:2], "b"]
    with pytest.raises(UserError, match=r"must be given once but .*b.txt is given 2 times"):
        distinct_names([paths[2], str(tmp_path / "x" / ".." / "b.txt")])
