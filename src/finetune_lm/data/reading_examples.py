"""Read a data file and its metadata, and say exactly what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from finetune_lm.arguments.nested import strings_in
from finetune_lm.constants import LEADING
from finetune_lm.data.examples import (
    JSON_SUFFIXES,
    METADATA_ENDINGS,
    TEXT_SUFFIXES,
    Examples,
    dataset_name,
    stem,
)
from finetune_lm.data.items import (
    check_items,
    conditions_in,
    has_pairs,
    moved_by,
    with_leading_space,
)
from finetune_lm.data.json_lines import NO_TEXT, check_text, read_object
from finetune_lm.data.lines import read_lines, read_objects
from finetune_lm.data.suites import Suite, suite_in
from finetune_lm.data.units import check_units, given_in_line
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments


MOST_KEPT_LINES = 500_000
"""Of all data files together that `reading_once` keeps in memory."""


@dataclass(frozen=True)
class ReadingOfPairs:
    """How files of pairs and test suites are read.

    Attributes:
        leading_space: Whether a space is put before each sentence.
        detokenize: Whether the regions of SyntaxGym are joined as one writes.
        contrasts: The conditions of each contrast. Lines that have them are compared though none
            is said to be expected.
    """

    leading_space: bool = False
    detokenize: bool = False
    contrasts: tuple[frozenset[str], ...] = ()

    @classmethod
    def of(cls, args: DataTrainingArguments) -> Self:
        """What the arguments say."""
        contrasts = args.parsed_contrasts().values()
        return cls(
            args.pair_space == LEADING,
            args.detokenize,
            tuple(frozenset(cost.condition for cost in each.costs) for each in contrasts),
        )


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


def read_examples(
    path: str, max_samples: int | None = None, pairs: ReadingOfPairs | None = None
) -> Examples:
    """Read a data file whole, with its metadata, and check every line of both.

    Args:
        path: A ``.txt`` file of one text a line, or a ``.json`` or ``.jsonl`` file of one object a
            line with ``text`` and perhaps ``labels``, or with ``prefix`` and ``target``, and
            perhaps ``words`` and ``regions``; each may be gzipped (``.gz``). Where pairs are read,
            also one of pairs or a test suite, as `data.suites` has them.
        max_samples: Keep only this many lines, or items of a suite, from the start.
        pairs: How pairs and suites are read; None where they are not.

    Raises:
        UserError: Naming the file, and the line where it is one line that is wrong.
    """
    before = _read_before.get()
    if before is None:
        return _read_examples(path, max_samples, pairs)
    now = _files_now(path)
    kept = before.pop((path, max_samples, pairs), None)
    if kept is None or kept.files != now:
        kept = _Read(now)
        try:
            kept.examples = _read_examples(path, max_samples, pairs)
        except UserError as error:
            kept.problems = error.problems
    # The last ones are those that were asked for last.
    before[path, max_samples, pairs] = kept
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
    for each in (path, *(stem(path) + ending for ending in METADATA_ENDINGS)):
        try:
            status = os.stat(each)  # noqa: PTH116 - Path.stat fails on a NUL likewise
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except (OSError, ValueError):
            found.append(os.path.lexists(each) if "\0" not in each else None)
    return tuple(found)


def _read_examples(path: str, max_samples: int | None, pairs: ReadingOfPairs | None) -> Examples:
    if path.endswith(JSON_SUFFIXES) and pairs:
        suite = suite_in(path, detokenize=pairs.detokenize, at_most=max_samples)
        if suite is not None:
            return _examples_of_suite(path, suite, pairs)
    if path.endswith(TEXT_SUFFIXES):
        texts, labels, units = list(read_lines(path)), None, None
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
    if pairs and _is_compared(examples, pairs):
        examples = _with_pairs(examples, pairs)
    return examples.first(max_samples)


def _is_compared(examples: Examples, pairs: ReadingOfPairs) -> bool:
    """Whether the lines of a plain file belong together in pairs or contrasts.

    Raises:
        UserError: If they do in pairs, and one is not as it must be.
    """
    if has_pairs(examples.metadata):
        check_items(examples.metadata, examples.metadata_path or examples.path)
        return True
    conditions = conditions_in(examples.metadata) if pairs.contrasts else set()
    return any(contrast <= conditions for contrast in pairs.contrasts)


def _with_pairs(examples: Examples, pairs: ReadingOfPairs) -> Examples:
    """Examples that are compared, with a space before each if that is wanted."""
    examples = replace(examples, has_pairs=True)
    if not pairs.leading_space:
        return examples
    texts, labels = map(with_leading_space, (examples.texts, examples.labels or []))
    n_moved = [len(after) - len(text) for text, after in zip(examples.texts, texts, strict=True)]
    metadata = list(map(moved_by, examples.metadata, n_moved))
    return replace(examples, texts=texts, labels=labels or None, metadata=metadata)


def _examples_of_suite(path: str, suite: Suite, pairs: ReadingOfPairs) -> Examples:
    """The sentences of a suite. Further metadata have a line for each line or item of it."""
    more, metadata_path = _read_metadata(path, suite.n_items)
    return _with_pairs(
        Examples(
            dataset_name(path),
            path,
            suite.texts,
            None,
            suite.metadata(more),
            metadata_path,
            tuple(suite.predictions),
        ),
        pairs,
    )


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
    for number, example in enumerate(read_objects(path), start=1):
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


def _read_metadata(path: str, n_examples: int) -> tuple[list[dict[str, Any]], str | None]:
    """The metadata of each example, and the file it is from."""
    begin = stem(path)
    # A link that leads nowhere is there too: without it metadata would be lost in silence.
    files = [begin + ending for ending in METADATA_ENDINGS if os.path.lexists(begin + ending)]
    if not files:
        return [{} for _ in range(n_examples)], None
    if len(files) > 1:
        raise UserError(
            f"{path} must have its metadata in one file, but there are {' and '.join(files)}. "
            "Remove those that are not meant."
        )
    metadata = []
    known: set[str] = set()
    for number, line in enumerate(read_lines(files[0]), start=1):
        values = read_object(line, f"{files[0]}, line {number}")
        for key in values:
            if key not in known and (not key.isprintable() or not key.strip()):
                raise UserError(
                    f"{files[0]}, line {number}: a key must be the name of a column but is {key!r}."
                )
        known.update(values)
        # In a line of JSON such characters can only be written as \u0000 or \ud800.
        if "\\u" in line and NO_TEXT.search("".join(strings_in(values))):
            wrong = next(k for k in values if NO_TEXT.search("".join(strings_in(values[k]))))
            raise UserError(
                f"{files[0]}, line {number}: {wrong!r} must be text but has a NUL or half a "
                f"surrogate pair in it."
            )
        metadata.append(values)
    if len(metadata) != n_examples:
        raise UserError(
            f"metadata must have one line for each line of the data, but {files[0]} has "
            f"{len(metadata)} and {path} has {n_examples}."
        )
    return metadata, files[0]


def _keys(example: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in example) or "no keys"
