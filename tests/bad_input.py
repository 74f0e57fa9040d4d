"""One kind of bad input: how to make it, and what is said of it before a model is loaded."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

GOOD = "The man has always broken the glass.\nThe women drank.\n"
SUFFIXES = ".txt.gz, .txt, .json.gz, .json, .jsonl.gz, .jsonl"
TEST = ["--test_file"]
TRAIN = ["--train_file", "x.txt", "--validation_file", "x.txt"]
PACKED = gzip.compress(GOOD.encode(), mtime=0)


class Case(NamedTuple):
    """One kind of bad input.

    Attributes:
        make: Makes the files, in the current directory.
        argv: The command line, with `BASE` before it.
        said: What is said, without "finetune-lm: error: " before each line.
    """

    make: Callable[[], Any]
    argv: list[str]
    said: list[str]


BASE = ["--model_name_or_path", "tiny-lm"]


def nothing() -> None:
    """Make no files."""


def file(name: str, content: str | bytes) -> Callable[[], None]:
    """Write a file, gzipped if its name says so."""

    def make() -> None:
        data = content.encode() if isinstance(content, str) else content
        Path(name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)

    return make


def raw(name: str, content: bytes) -> Callable[[], None]:
    """Write a file as it is, whatever its name."""

    def make() -> None:
        Path(name).write_bytes(content)

    return make


def both(*makers: Callable[[], None]) -> Callable[[], None]:
    def make() -> None:
        for each in makers:
            each()

    return make


def link(name: str, target: str) -> Callable[[], None]:
    return lambda: Path(name).symlink_to(target)


def bad_file(name: str, content: str | bytes, said: str) -> Case:
    return Case(file(name, content), [*TEST, name], [said])


def metadata(content: str | bytes, said: str) -> Case:
    """Metadata for a good file of two lines."""
    makers = both(file("x.txt.gz", GOOD), file("x_metadata.json.gz", content))
    return Case(makers, [*TEST, "x.txt.gz"], [said])


def config(content: str | bytes, *said: str) -> Case:
    return Case(file("run.yaml", content), [*TEST, "x.txt", "--config", "run.yaml"], list(said))


def arguments(argv: str | list[str], *said: str) -> Case:
    """A command line that is wrong by itself, with good data."""
    words = argv.split() if isinstance(argv, str) else argv
    return Case(file("x.txt.gz", GOOD), [*TEST, "x.txt.gz", *words], list(said))
