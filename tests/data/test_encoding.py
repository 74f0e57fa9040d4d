"""Texts are tokenized once: what is kept is used again, unless it is damaged or cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from families import family
from finetune_lm.data import encoding
from helpers import ACTIVE, WithoutOffsets, dataset, examples


@pytest.fixture
def calls(monkeypatch):
    """One entry for each time that texts are tokenized."""
    made = []
    original = encoding._EncodeRows.__call__
    monkeypatch.setattr(
        encoding._EncodeRows,
        "__call__",
        lambda self, rows: made.append(1) or original(self, rows),
    )
    return made


def test_tokenizing_in_several_processes_gives_the_same(gpt2):
    many = examples([f"{text} {i}" for i in range(10) for text in ACTIVE])
    one = dataset(gpt2, many, overwrite_cache=True)
    two = dataset(gpt2, many, overwrite_cache=True, num_workers=2)
    assert one.dataset.to_dict() == two.dataset.to_dict()


def test_the_cache_is_used_until_it_is_overwritten(gpt2, calls):
    lines = examples(["only in this test"])
    first = dataset(gpt2, lines)
    assert len(calls) == 1
    again = dataset(gpt2, lines)
    assert len(calls) == 1
    assert again.dataset.to_dict() == first.dataset.to_dict()
    dataset(gpt2, lines, overwrite_cache=True)
    assert len(calls) == 2
    dataset(gpt2, lines, append_eos=True)
    dataset(gpt2, lines, max_length=3)
    dataset(family("llama"), lines)
    assert len(calls) == 5


def test_python_tokenizers_are_not_cached(calls):
    """Nothing describes all that they do, so an earlier result could be another tokenizer's."""
    fam = family("bert")
    slow = fam._replace(tokenizer=WithoutOffsets(fam.tokenizer))
    for _ in range(2):
        dataset(slow, examples(["some words"]))
    assert len(calls) == 2


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    # As a disk may have it: another token, or another letter of the checksum.
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes())),
}


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("suffix", [".arrow", ".json"])
def test_a_damaged_cache_is_made_anew(gpt2, monkeypatch, tmp_path, capsys, kind, suffix):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    lines = examples([f"The {noun} has always broken the glass." for noun in ("man", "boy")] * 50)
    first = dataset(gpt2, lines).dataset.to_dict()
    [path] = tmp_path.glob(f"finetune_lm/*{suffix}")
    DAMAGE[kind](path)
    assert dataset(gpt2, lines).dataset.to_dict() == first
    assert capsys.readouterr().err == ""
    if kind == "a directory":  # somebody else's, and left alone where it cannot be replaced
        return
    # And kept, so that the run after it finds it.
    monkeypatch.setattr(encoding._EncodeRows, "__call__", None)
    assert dataset(gpt2, lines).dataset.to_dict() == first


def test_without_a_cache_directory(gpt2, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", Path("/proc/nowhere"), tmp_path / ("x" * 300)):
        monkeypatch.setenv("HF_DATASETS_CACHE", str(directory))
        assert len(dataset(gpt2, examples(["another line"]))) == 1


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_a_cache_that_cannot_be_written_is_done_without(gpt2, monkeypatch, tmp_path, call):
    """A disk that is full or read-only, at any step of it."""
    import pyarrow as pa

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    where = {
        "open": (pa, "OSFile"),
        "write": (pa.ipc, "new_stream"),
        "fsync": (os, "fsync"),
        "rename": (Path, "replace"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*where[call], full)
        data = dataset(gpt2, examples(["a line that cannot be kept"]))
    assert len(data) == 1
    assert not list(tmp_path.rglob("*.tmp"))
