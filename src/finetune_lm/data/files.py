"""The data files of a run: all that its arguments name, and whether they go with what is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.nested import strings_in
from finetune_lm.constants import BY_LOSS, DATASET_TYPES, PROBE
from finetune_lm.data.examples import (
    JSON_SUFFIXES,
    METADATA_ENDINGS,
    TEXT_SUFFIXES,
    Examples,
    Files,
    dataset_name,
    distinct_names,
)
from finetune_lm.data.items import (
    ITEM,
    PAIR,
    PHENOMENON,
    as_text,
    conditions_in,
    has_pairs,
    regions_in,
)
from finetune_lm.data.patterns import files_of_patterns
from finetune_lm.data.reading_examples import (
    ReadingOfPairs,
    read_examples,
)
from finetune_lm.errors import UserError
from finetune_lm.formulas import ALL_REGIONS

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments


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
