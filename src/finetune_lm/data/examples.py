"""What a data file says, line by line, and what it is called."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_lm.data.json_lines import check_text
from finetune_lm.errors import UserError

TEXT_SUFFIXES = (".txt.gz", ".txt")
JSON_SUFFIXES = (".json.gz", ".json", ".jsonl.gz", ".jsonl")
METADATA_ENDINGS = tuple(f"_metadata{suffix}" for suffix in JSON_SUFFIXES)


@dataclass(frozen=True)
class Examples:
    """What a data file says, line by line.

    Attributes:
        name: The file's name without its suffix.
        path: Where it is.
        texts: One text a line.
        labels: The text of the labels of each line, or None if the file gives none.
        metadata: The metadata of each line; empty dictionaries if there are none.
        metadata_path: Where the metadata is, or None if there is none.
        predictions: The formulas of a test suite.
        has_pairs: Whether some texts are expected to be likelier than others, or are compared by
            contrasts or predictions.
    """

    name: str
    path: str
    texts: list[str]
    labels: list[str] | None = None
    metadata: list[dict[str, Any]] = field(default_factory=list)
    metadata_path: str | None = None
    predictions: tuple[str, ...] = ()
    has_pairs: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """Texts, labels, metadata and predictions, hashed."""
        says: list[Any] = [self.texts, self.labels, self.metadata]
        if self.predictions:
            says.append(self.predictions)
        content = json.dumps(says)
        return hashlib.sha256(content.encode()).hexdigest()

    def first(self, n: int | None) -> Examples:
        """The first ``n`` examples, or all of them if there are fewer or ``n`` is None."""
        return self if n is None or n >= len(self) else self.select(range(n))

    def with_labels_as_texts(self) -> Examples:
        """Those whose texts are what is given as labels; themselves if no labels are given."""
        return self if self.labels is None else replace(self, texts=self.labels, labels=None)

    def select(self, rows: Sequence[int]) -> Examples:
        """Some of the examples, in the order given."""
        return replace(
            self,
            texts=[self.texts[i] for i in rows],
            labels=None if self.labels is None else [self.labels[i] for i in rows],
            metadata=[self.metadata[i] for i in rows],
        )


Files = dict[str, list[Examples]]
"""Data files by what they are for: ``train``, ``validation``, ``test``, ``probe``."""


def dataset_name(path: str) -> str:
    """The name of a data file without its directory and suffix."""
    name = Path(path).name
    for suffix in (*TEXT_SUFFIXES, *JSON_SUFFIXES):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def check_texts(path: str, texts: Sequence[Any], labels: Sequence[Any] | None) -> None:
    """See that examples which do not come from a data file are what a data file may hold.

    Args:
        path: Where they come from, for messages.
        texts: The texts.
        labels: The texts of the labels, if there are any.

    Raises:
        UserError: Naming the first that is no text or is blank.
    """
    if not texts:
        raise UserError(f"a data set must have at least one example but {path} has none.")
    for name, values in (("text", texts), ("labels", labels or ())):
        for number, value in enumerate(values, start=1):
            check_text(value, f"{path}, example {number}: {name!r}")


def file_hashes(files: Files) -> dict[str, str]:
    """What each file says, as far as it is used, hashed: the same data give the same hash."""
    return {e.path: content_hash(e) for group in files.values() for e in group}


def content_hash(examples: Examples) -> str:
    """What a data file says, as far as it is used, hashed."""
    return examples.digest


def distinct_names(paths: Sequence[str]) -> list[str]:
    """What the tables call data files: by name, where that is not enough by more of the path.

    Raises:
        UserError: If a file is given twice.

    Example:
        >>> distinct_names(["a/x.txt.gz", "b/x.txt", "b/x.json", "y.txt"])
        ['a/x', 'b/x.txt', 'b/x.json', 'y']
    """
    places = [_place(path) for path in paths]
    for place, count in Counter(places).items():
        if count > 1:
            path = paths[places.index(place)]
            raise UserError(f"each data file must be given once but {path} is given {count} times.")
    names = [dataset_name(path) for path in paths]
    for longer in (lambda path: str(Path(path).parent / dataset_name(path)), str):
        counts = Counter(names)
        names = [
            longer(path) if counts[name] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def _place(path: str) -> str:
    """Where a file is, whatever it is called."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a NUL in it
        return path


def stem(path: str) -> str:
    """What the names of a data file and of its metadata begin with."""
    return path.removesuffix(Path(path).name) + dataset_name(path)
