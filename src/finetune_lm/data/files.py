"""Read a data file and its metadata, and say exactly what is wrong with them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from finetune_lm.arguments.nested import strings_in
from finetune_lm.constants import DATASET_TYPES, PROBE
from finetune_lm.data.json_lines import NO_TEXT, check_text, read_object
from finetune_lm.data.units import check_units, given_in_line
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

TEXT_SUFFIXES = (".txt.gz", ".txt")
JSON_SUFFIXES = (".json.gz", ".json", ".jsonl.gz", ".jsonl")
METADATA_ENDINGS = tuple(f"_metadata{suffix}" for suffix in JSON_SUFFIXES)

LONGEST_LINE = 2**26
"""Of a line, in bytes. What is longer is no text, and reading on might fill the memory."""

MOST_KEPT_LINES = 500_000
"""Of all data files together that `reading_once` keeps in memory."""


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
    """

    name: str
    path: str
    texts: list[str]
    labels: list[str] | None = None
    metadata: list[dict[str, Any]] = field(default_factory=list)
    metadata_path: str | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """Texts, labels and metadata, hashed."""
        content = json.dumps([self.texts, self.labels, self.metadata])
        return hashlib.sha256(content.encode()).hexdigest()

    def first(self, n: int | None) -> Examples:
        """The first ``n`` examples, or all of them if there are fewer or ``n`` is None."""
        return self if n is None or n >= len(self) else self.select(range(n))

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
        PROBE: (args.probe_file or [], args.max_probe_samples),
    }
    files: Files = {dataset_type: [] for dataset_type in paths}
    problems: list[str] = []
    for dataset_type, (group, max_samples) in paths.items():
        for path in group:
            try:
                files[dataset_type].append(read_examples(path, max_samples))
            except UserError as error:
                problems.extend(error.problems)
    for paths_of_table in (args.test_file, args.probe_file):
        try:
            distinct_names(paths_of_table or [])
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(*problems)
    return files


def arguments_of_missing_files(args: DataTrainingArguments) -> list[str]:
    """The arguments that name data files which are not there, such as ``train_file``."""
    values = args.effective()
    names = {name: values[name] for name in (f"{kind}_file" for kind in DATASET_TYPES)}
    found = {name for name, value in names.items() if any(map(_is_missing, strings_in(value)))}
    for dataset_type, by_class in values["loss_classes_kwargs"].items():
        for loss, kwargs in by_class.items():
            for key, value in kwargs.items():
                ends = (*TEXT_SUFFIXES, *JSON_SUFFIXES)
                if any(text.endswith(ends) and _is_missing(text) for text in strings_in(value)):
                    found.add(f"loss_classes_kwargs.{dataset_type}.{loss}.{key}")
    return sorted(found)


def _is_missing(path: str) -> bool:
    return not os.path.exists(path)  # noqa: PTH110 - Path.exists fails on a long path


def dataset_name(path: str) -> str:
    """The name of a data file without its directory and suffix."""
    name = Path(path).name
    for suffix in (*TEXT_SUFFIXES, *JSON_SUFFIXES):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


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


@dataclass
class _Read:
    """What came of reading a file once."""

    files: tuple[Any, ...]
    examples: Examples | None = None
    problems: tuple[str, ...] = ()


_read_before: ContextVar[dict[Any, _Read] | None] = ContextVar("read_before", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Inside, a data file is read once, and again only when it or its metadata have changed."""
    if _read_before.get() is not None:
        yield
        return
    token = _read_before.set({})
    try:
        yield
    finally:
        _read_before.reset(token)


def read_examples(path: str, max_samples: int | None = None) -> Examples:
    """Read a data file whole, with its metadata, and check every line of both.

    Args:
        path: A ``.txt`` file of one text a line, or a ``.json`` or ``.jsonl`` file of one object a
            line with ``text`` and perhaps ``labels``, or with ``prefix`` and ``target``, and
            perhaps ``words`` and ``regions``; each may be gzipped (``.gz``).
        max_samples: Keep only this many, from the start.

    Raises:
        UserError: Naming the file, and the line where it is one line that is wrong.
    """
    before = _read_before.get()
    if before is None:
        return _read_examples(path, max_samples)
    now = _files_now(path)
    kept = before.pop((path, max_samples), None)
    if kept is None or kept.files != now:
        kept = _Read(now)
        try:
            kept.examples = _read_examples(path, max_samples)
        except UserError as error:
            kept.problems = error.problems
    # The last ones are those that were asked for last.
    before[path, max_samples] = kept
    while len(before) > 1 and sum(map(_size, before.values())) > MOST_KEPT_LINES:
        del before[next(iter(before))]
    if kept.examples is None:
        raise UserError(*kept.problems)
    return kept.examples


def _size(read: _Read) -> int:
    return len(read.examples) if read.examples is not None else 0


def _files_now(path: str) -> tuple[Any, ...]:
    """A data file and what may be its metadata, as far as the system knows them."""
    found: list[Any] = []
    for each in (path, *(_stem(path) + ending for ending in METADATA_ENDINGS)):
        try:
            status = os.stat(each)  # noqa: PTH116 - Path.stat fails on a NUL likewise
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):
            found.append(os.path.lexists(each) if "\0" not in each else None)
    return tuple(found)


def _read_examples(path: str, max_samples: int | None) -> Examples:
    if path.endswith(TEXT_SUFFIXES):
        texts, labels, units = list(_read_lines(path)), None, None
        for number, text in enumerate(texts, start=1):
            check_text(text, f"{path}, line {number}:")
            if "\r" in text:
                raise UserError(
                    f"{path}, line {number}: must not have a carriage return (\\r) within it. "
                    f"Lines end in \\n, or in \\r\\n."
                )
    elif path.endswith(JSON_SUFFIXES):
        texts, labels, units = _read_json_examples(path)
    else:
        raise UserError(
            f"a data file must end in one of {', '.join((*TEXT_SUFFIXES, *JSON_SUFFIXES))} "
            f"but got {path}."
        )
    if not texts:
        raise UserError(f"a data file must have at least one line but {path} is empty.")
    metadata, metadata_path = _read_metadata(path, len(texts))
    check_units(metadata, metadata_path or path, texts, labels)
    if units is not None:
        check_units(units, path, texts, labels)
        metadata = _with_units(metadata, units, path)
    examples = Examples(dataset_name(path), path, texts, labels, metadata, metadata_path)
    return examples.first(max_samples)


def _with_units(
    metadata: list[dict[str, Any]], units: list[dict[str, Any]], path: str
) -> list[dict[str, Any]]:
    """Metadata with the words and regions that stand in the lines of the data."""
    for number, (values, given) in enumerate(zip(metadata, units, strict=True), start=1):
        for key in given:
            if values.get(key) is not None:
                raise UserError(
                    f"{path}, line {number}: has {key!r}, and so have its metadata. Give them once."
                )
    return [{**values, **given} for values, given in zip(metadata, units, strict=True)]


def _read_json_examples(
    path: str,
) -> tuple[list[str], list[str] | None, list[dict[str, Any]]]:
    texts: list[str] = []
    labels: list[str] = []
    units: list[dict[str, Any]] = []
    for number, example in enumerate(_read_objects(path), start=1):
        where = f"{path}, line {number}"
        text, given = given_in_line(example, where)
        if text is None and "text" not in example:
            raise UserError(
                f"{where}: an example must have the key 'text' but has {_keys(example)}."
            )
        texts.append(check_text(example["text"], f"{where}: 'text'") if text is None else text)
        units.append(given)
        if "labels" in example:
            labels.append(check_text(example["labels"], f"{where}: 'labels'"))
        if len(labels) not in (0, number):
            have, lack = (number, number - 1) if "labels" in example else (number - 1, number)
            raise UserError(
                f"{path}: either all lines must have 'labels' or none, "
                f"but line {have} has them and line {lack} has not."
            )
    return texts, labels or None, units


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


def _read_metadata(path: str, n_examples: int) -> tuple[list[dict[str, Any]], str | None]:
    """The metadata of each example, and the file it is from."""
    stem = _stem(path)
    # A link that leads nowhere is there too: without it metadata would be lost in silence.
    files = [stem + ending for ending in METADATA_ENDINGS if os.path.lexists(stem + ending)]
    if not files:
        return [{} for _ in range(n_examples)], None
    if len(files) > 1:
        raise UserError(
            f"{path} must have its metadata in one file, but there are {' and '.join(files)}. Take "
            f"away those that are not meant."
        )
    metadata = []
    for number, values in enumerate(_read_objects(files[0]), start=1):
        for key in values:
            if not key.isprintable() or not key.strip():
                raise UserError(
                    f"{files[0]}, line {number}: a key must be the name of a column but is {key!r}."
                )
            if any(NO_TEXT.search(text) for text in strings_in(values[key])):
                raise UserError(
                    f"{files[0]}, line {number}: {key!r} must be text but has a NUL or half a "
                    f"surrogate pair in it."
                )
        metadata.append(values)
    if len(metadata) != n_examples:
        raise UserError(
            f"metadata must have one line for each line of the data, but {files[0]} has "
            f"{len(metadata)} and {path} has {n_examples}."
        )
    return metadata, files[0]


def _stem(path: str) -> str:
    """What the names of a data file and of its metadata begin with."""
    return path.removesuffix(Path(path).name) + dataset_name(path)


def _read_objects(path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_lines(path), start=1):
        yield read_object(line, f"{path}, line {number}")


def _keys(example: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in example) or "no keys"


def _read_lines(path: str) -> Iterator[str]:
    """Lines of a text file, gzipped if so named, without their line ends.

    Only a line feed ends a line: other characters that Unicode counts as line ends may stand in a
    text. A carriage return before it is Windows' line end and goes with it. So does a byte-order
    mark, which files that were put together have in their middle too.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):  # noqa: PTH112, PTH116
            # Opening a pipe may wait for ever, and a device may never end.
            raise UserError(f"{path} must be a file but is a pipe or a device.")
        with Path(path).open("rb") as raw, contextlib.ExitStack() as stack:
            file: IO[bytes] = raw
            if path.endswith(".gz"):
                if raw.peek(2)[:2] not in (b"\x1f\x8b", b""):
                    raise UserError(f"a file named .gz must be gzipped but {path} is not.")
                file = cast("IO[bytes]", stack.enter_context(gzip.open(raw)))
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{path}, line {number}: must be a line of text but is longer than "
                        f"{LONGEST_LINE // 2**20} MB."
                    )
                try:
                    text = line.decode("utf-8-sig")
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
