"""The parser and the readers fed with anything that matters: no exception but a user's error.

`make fuzz` looks for more of it, for as long as one likes.
"""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import targets

ALL = [
    pytest.param(name, seed, id=f"{name}-{number}")
    for name, seeds in targets.SEEDS.items()
    for number, seed in enumerate(seeds)
]


@pytest.fixture(scope="module", autouse=True)
def few_imports():
    with targets.few_imports():
        yield


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_what_fuzzing_begins_with(name, seed):
    targets.TARGETS[name](seed)


@pytest.mark.parametrize(("name", "seed"), ALL)
def test_what_it_begins_with_cut_off_and_turned_around(name, seed):
    for part in (seed[: len(seed) // 2], seed[1:], seed[::-1], seed + b"\xff", seed * 3, b""):
        targets.TARGETS[name](part)


# Words of the program, text with every kind of character, and bytes that are no text.
WORDS = st.sampled_from(targets.dictionary()) | st.text().map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
BYTES = WORDS | st.binary()


@given(st.lists(st.lists(BYTES, max_size=3).map(b"".join), max_size=8).map(b"\0".join))
@example(b"--seed\0" + b"9" * 5000)
@example(b"--delta\0-" + b"9" * 400)
@example(b"--model_kwargs.x\0json:" + b"9" * 5000)
@example(b"--model_kwargs.x\0json:" + b"[" * 100_000)
@example(b"--preview\0" + b"9" * 5000)
@example(b"--params" + b".a" * 3000)
def test_any_command_line(data):
    targets.command_line(data)


@given(st.lists(BYTES | st.sampled_from([b"\n", b": ", b"\n  ", b", ", b"[", b"{", b"]"])))
@example([b'model_kwargs: {x: "\\U00110000"}'])
@example([b'model_kwargs: {x: "\\ud800"}'])
@example([b"model_kwargs: ", b"[" * 5000])
@example([b"\xef\xbb\xbfseed: 1"])
def test_any_config_file(parts):
    targets.config_file(b"".join(parts))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=6,
)
LINES = st.lists(
    st.dictionaries(st.sampled_from(["text", "labels", "item", "a"]) | st.text(), VALUES).map(
        lambda value: json.dumps(value).encode()
    )
    | BYTES,
    max_size=6,
)


@given(st.integers(0, 255), LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.binary())
def test_any_data_file(kind, lines, end, rest):
    content = end.join(lines)
    targets.data_file(bytes([kind]) + content + rest)
    # What is really gzipped, perhaps with something behind it.
    targets.data_file(bytes([kind | 128]) + gzip.compress(content, mtime=0) + rest)


@given(LINES, st.binary())
@example([b'{"a": ' + b"9" * 5000 + b"}"], b"")
@example([b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}"], b"")
def test_any_metadata(lines, rest):
    targets.metadata_file(b"\n".join(lines))
    targets.metadata_file(b"\n".join(lines) + rest)


def test_a_target_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seeds in targets.SEEDS.items():
        for seed in seeds:
            targets.TARGETS[name](seed)
    assert os.getcwd() == str(tmp_path)  # noqa: PTH109
    assert list(tmp_path.iterdir()) == []
