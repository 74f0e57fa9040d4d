"""Read a data file and its metadata, and say exactly what is wrong with them."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

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
    """

    name: str
    path: str
    texts: list[str]
    labels: list[str] | None = None
    metadata: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, n: int | None) -> Examples:
        """The first ``n`` examples, or all of them if there are fewer or ``n`` is None."""
        if n is None or n >= len(self):
            return self
        return Examples(
            self.name,
            self.path,
            self.texts[:n],
            None if self.labels is None else self.labels[:n],
            self.metadata[:n],
        )


Files = dict[str, list[Examples]]
"""Data files by what they are for: ``train``, ``validation``, ``test``."""


def read_files(args: DataTrainingArguments) -> Files:
    """Read every data file that the arguments name.

    Raises:
        UserError: With every problem of every file.
    """
    paths: dict[str, tuple[list[str], int | None]] = {
        "train": ([args.train_file] if args.train_file else [], args.max_train_samples),
        "validation": (
            [args.validation_file] if args.validation_file else [],
            args.max_validation_samples,
        ),
        "test": (args.test_file or [], args.max_test_samples),
    }
    files: Files = {dataset_type: [] for dataset_type in paths}
    problems: list[str] = []
    for dataset_type, (group, max_samples) in paths.items():
        for path in group:
            try:
                files[dataset_type].append(read_examples(path, max_samples))
            except UserError as error:
                problems.extend(error.problems)
    if problems:
        raise UserError(*problems)
    return files


def dataset_name(path: str) -> str:
    """The name of a data file without its directory and suffix."""
    name = Path(path).name
    for suffix in (*TEXT_SUFFIXES, *JSON_SUFFIXES):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def read_examples(path: str, max_samples: int | None = None) -> Examples:
    """Read a data file whole, with its metadata, and check every line of both.

    Args:
        path: A ``.txt`` file of one text a line, or a ``.json`` or ``.jsonl`` file of one object a
            line with ``text`` and perhaps ``labels``; each may be gzipped (``.gz``).
        max_samples: Keep only this many, from the start.

    Raises:
        UserError: Naming the file, and the line where it is one line that is wrong.
    """
    if path.endswith(TEXT_SUFFIXES):
        texts, labels = list(_read_lines(path)), None
        for number, text in enumerate(texts, start=1):
            _check_text(text, f"{path}, line {number}")
    elif path.endswith(JSON_SUFFIXES):
        texts, labels = _read_json_examples(path)
    else:
        raise UserError(
            f"a data file must end in one of {', '.join((*TEXT_SUFFIXES, *JSON_SUFFIXES))} "
            f"but got {path}."
        )
    if not texts:
        raise UserError(f"a data file must have at least one line but {path} is empty.")
    metadata = _read_metadata(path, len(texts))
    return Examples(dataset_name(path), path, texts, labels, metadata).first(max_samples)


def _read_json_examples(path: str) -> tuple[list[str], list[str] | None]:
    texts: list[str] = []
    labels: list[str] = []
    for number, example in enumerate(_read_objects(path), start=1):
        where = f"{path}, line {number}"
        if "text" not in example:
            raise UserError(
                f"{where}: an example must have the key 'text' but has {_keys(example)}."
            )
        texts.append(_check_text(example["text"], f"{where}: 'text'"))
        if "labels" in example:
            labels.append(_check_text(example["labels"], f"{where}: 'labels'"))
        if len(labels) not in (0, number):
            have, lack = (number, number - 1) if "labels" in example else (number - 1, number)
            raise UserError(
                f"{path}: either all lines must have 'labels' or none, "
                f"but line {have} has them and line {lack} has not."
            )
    return texts, labels or None


def _check_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: must be a string but got {json.dumps(value)[:80]}.")
    if not value.strip():
        raise UserError(f"{where}: must not be blank. Take blank lines out of the file.")
    return value


def _read_metadata(path: str, n_examples: int) -> list[dict[str, Any]]:
    stem = path.removesuffix(Path(path).name) + dataset_name(path)
    files = [stem + ending for ending in METADATA_ENDINGS if Path(stem + ending).exists()]
    if not files:
        return [{} for _ in range(n_examples)]
    metadata = list(_read_objects(files[0]))
    if len(metadata) != n_examples:
        raise UserError(
            f"metadata must have one line for each line of the data, but {files[0]} has "
            f"{len(metadata)} and {path} has {n_examples}."
        )
    return metadata


def _read_objects(path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            raise UserError(f"{where}: must be a JSON object but is blank.")
        try:
            value = json.loads(line, object_pairs_hook=_without_repeats)
        except RecursionError:
            raise UserError(f"{where}: must be JSON but is nested too deep to be read.") from None
        except ValueError as error:
            raise UserError(f"{where}: must be JSON but is not ({error}).") from None
        if not isinstance(value, dict):
            raise UserError(
                f'{where}: must be a JSON object, as in {{"text": "..."}}, but got {line[:80]}.'
            )
        yield value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as a dictionary; a key given twice would silently lose one value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
    return value


def _keys(example: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in example) or "no keys"


def _read_lines(path: str) -> Iterator[str]:
    """Lines of a text file, gzipped if so named, without their line ends.

    Only a line feed ends a line: other characters that Unicode counts as line ends may stand in a
    text. A carriage return before it is Windows' line end and goes with it.
    """
    try:
        with Path(path).open("rb") as raw, contextlib.ExitStack() as stack:
            file: IO[bytes] = raw
            if path.endswith(".gz"):
                if raw.peek(2)[:2] not in (b"\x1f\x8b", b""):
                    raise UserError(f"a file named .gz must be gzipped but {path} is not.")
                file = cast("IO[bytes]", stack.enter_context(gzip.open(raw)))
            for number, line in enumerate(file, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: must be UTF-8 but is not ({error.reason} at byte "
                        f"{error.start + 1})."
                    ) from None
                yield text.removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} must be a file but is a directory.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
