"""Read a data file and its metadata, and say exactly what is wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finetune_lm.arguments.nested import strings_in
from finetune_lm.constants import BY_LOSS, DATASET_TYPES, LEADING, PROBE
from finetune_lm.data.items import (
    ITEM,
    PAIR,
    PHENOMENON,
    as_text,
    check_items,
    conditions_in,
    has_pairs,
    moved_by,
    regions_in,
    with_leading_space,
)
from finetune_lm.data.json_lines import NO_TEXT, check_text
from finetune_lm.data.lines import read_lines, read_objects
from finetune_lm.data.patterns import files_of_patterns
from finetune_lm.data.suites import Suite, suite_in
from finetune_lm.data.units import check_units, given_in_line
from finetune_lm.errors import UserError
from finetune_lm.formulas import ALL_REGIONS

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

TEXT_SUFFIXES = (".txt.gz", ".txt")
JSON_SUFFIXES = (".json.gz", ".json", ".jsonl.gz", ".jsonl")
METADATA_ENDINGS = tuple(f"_metadata{suffix}" for suffix in JSON_SUFFIXES)

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
    pairs = ReadingOfPairs.of(args)
    problems: list[str] = []
    groups: list[list[str]] = []
    for dataset_type, (patterns, max_samples) in paths.items():
        try:
            groups.append(files_of_patterns(patterns, but=METADATA_ENDINGS))
        except UserError as error:
            problems.extend(error.problems)
            continue
        for path in groups[-1]:
            try:
                files[dataset_type].append(
                    read_examples(path, max_samples, None if dataset_type == "train" else pairs)
                )
            except UserError as error:
                problems.extend(error.problems)
    for group in groups:
        try:
            distinct_names(group)
        except UserError as error:
            problems.extend(error.problems)
    if problems:
        raise UserError(*problems)
    if len(files["validation"]) > 1:
        files["validation"] = [_together(files["validation"], args.validation_file or "")]
    return files


def check_selection(args: DataTrainingArguments, files: Files) -> None:
    """See that the validation data have pairs if epochs are judged by them.

    Raises:
        UserError: If not.
    """
    validation = files["validation"]
    if args.select_by == BY_LOSS or not validation:
        return
    if not any(e.predictions or has_pairs(e.metadata) for e in validation):
        raise UserError(
            f"select_by {args.select_by} needs validation data with pairs: {args.validation_file} "
            f"has none. See docs/pairs.md."
        )


def check_contrasts(args: DataTrainingArguments, files: Files) -> None:
    """See that for each contrast there is a data set that has all its conditions and regions.

    Raises:
        UserError: Naming those for which there is none, and a region of pairs that there is not.
    """
    if not args.contrasts and args.pair_region is None:
        return
    compared = [e for group in files.values() for e in group if e.has_pairs]
    there = [(conditions_in(each.metadata), regions_in(each.metadata)) for each in compared]
    conditions, regions = ({name for each in there for name in each[side]} for side in (0, 1))
    problems = []
    if args.pair_region is not None and str(args.pair_region) not in regions:
        problems.append(
            f"pair_region must be a region of the data but is {args.pair_region!r}. Regions there "
            f"are in data with pairs: {_listed(regions)}."
        )
    for name, formula in args.parsed_contrasts().items():
        wanted = {cost.condition for cost in formula.costs}
        of = {cost.region for cost in formula.costs if cost.region is not None} - {ALL_REGIONS}
        if not any(wanted <= each and of <= named for each, named in there):
            problems.append(
                f"contrasts.{name}: a data set must have all conditions and regions of "
                f"{formula.text!r}. Conditions ('condition' in the metadata): "
                f"{_listed(conditions)}; regions: {_listed(regions)}."
            )
    if problems:
        raise UserError(*problems)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _together(group: Sequence[Examples], pattern: str) -> Examples:
    """Several files as one data set. Their items stay apart by the file's name before each.

    Raises:
        UserError: If some have labels and others have not.
    """
    if len({examples.labels is None for examples in group}) > 1:
        raise UserError(f"{pattern}: either all files must have 'labels' or none.")
    names = distinct_names([examples.path for examples in group])
    metadata = []
    for name, examples in zip(names, group, strict=True):
        for number, values in enumerate(examples.metadata):
            items = {key: _named(name, values[key]) for key in (PAIR, ITEM) if key in values}
            own = {PHENOMENON: name} if examples.has_pairs else {}
            metadata.append({ITEM: _named(name, number), **own, **values, **items})
    return replace(
        group[0],
        name=dataset_name(pattern),
        path=pattern,
        texts=[text for examples in group for text in examples.texts],
        labels=None
        if group[0].labels is None
        else [text for examples in group for text in examples.labels or ()],
        metadata=metadata,
        metadata_path=None,
        predictions=tuple(dict.fromkeys(p for examples in group for p in examples.predictions)),
        has_pairs=any(examples.has_pairs for examples in group),
    )


def _named(name: str, item: Any) -> Any:
    if isinstance(item, list):
        return [_named(name, each) for each in item]
    return f"{name}:{as_text(item)}"


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
    try:
        # Not Path.exists, which fails on a long path.
        return not all(map(os.path.exists, files_of_patterns([path])))
    except UserError:
        return True


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
    for each in (path, *(_stem(path) + ending for ending in METADATA_ENDINGS)):
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
            f"{path} must have its metadata in one file, but there are {' and '.join(files)}. "
            "Remove those that are not meant."
        )
    metadata = []
    known: set[str] = set()
    for number, values in enumerate(read_objects(files[0]), start=1):
        for key in values:
            if key not in known and (not key.isprintable() or not key.strip()):
                raise UserError(
                    f"{files[0]}, line {number}: a key must be the name of a column but is {key!r}."
                )
        known.update(values)
        # Looked at together, since there are many and next to none is wrong.
        if NO_TEXT.search("".join(strings_in(values))):
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


def _stem(path: str) -> str:
    """What the names of a data file and of its metadata begin with."""
    return path.removesuffix(Path(path).name) + dataset_name(path)


def _keys(example: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in example) or "no keys"
