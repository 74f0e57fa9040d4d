"""What a run or a study is: all that its results depend on, so that only the same goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
)
from finetune_lm.arguments.declared import RESULT, Affects, what_affects
from finetune_lm.constants import DATASET_TYPES
from finetune_lm.data.examples import Files, content_hash, distinct_names
from finetune_lm.runs.source_hashes import source_hashes

AllArguments = tuple[ModelArguments, DataTrainingArguments, OptimizationArguments]
Place = tuple[str | int, ...]

CODE, MODEL = "code", "model"
"""What an identity has beside the arguments: hashes of the user's modules, and of the model."""

CONTENT = "sha256:"
"""Begins what stands for a file: what it says counts, not where it is."""

FILES = {f"{kind}_file": kind for kind in DATASET_TYPES}
"""The arguments that name data files, and what these are for."""


def identity_of(
    all_args: AllArguments,
    files: Files,
    of: Collection[Affects] = RESULT,
    *,
    without: Collection[Place] = (),
    named: bool = True,
) -> dict[str, Any]:
    """All that results depend on, in plain types, but the model's weights: they need loading.

    Args:
        all_args: The arguments.
        files: The data by what they are for, under ``loss`` those of the losses.
        of: What the arguments that count affect.
        without: Places among the arguments that do not count.
        named: Whether the names of data files count beside what they say, as they are in tables.

    Returns:
        By name: the arguments that count; each data file with its name and a hash of what it says;
        the hashes of the user's own modules (`CODE`).
    """
    config = config_dict(*all_args)
    values: dict[str, Any] = {}
    for place in without:
        _forget(config, place)
    identity: dict[str, Any] = {}
    contents = {examples.path: content_hash(examples) for examples in files.get("loss", [])}
    for args in all_args:
        effective = args.effective()
        for name, others in what_affects(of, type(args)).items():
            if name not in config:
                continue
            value, values[name] = config[name], effective[name]
            if isinstance(value, dict):
                value = {key: item for key, item in value.items() if key not in others}
                value = _by_content(value, effective[name], contents)
                values[name] = {k: v for k, v in values[name].items() if k not in others}
            identity[name] = value
    identity |= {
        name: _data(files.get(kind, []), named=named)
        for name, kind in FILES.items()
        if name in identity
    }
    identity[CODE] = source_hashes(values)
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _data(group: list[Any], *, named: bool) -> list[Any]:
    hashes = [content_hash(examples) for examples in group]
    if not named:
        return hashes
    names = distinct_names([examples.path for examples in group])
    return [list(pair) for pair in zip(names, hashes, strict=True)]


def _by_content(written: Any, value: Any, contents: Mapping[str, str], key: str = "") -> Any:
    """Keyword arguments in which what a file says stands for its path.

    Args:
        written: The arguments in plain types.
        value: The arguments themselves.
        contents: What data files say, by their paths.
        key: Under which key they are.
    """
    if isinstance(written, dict) and isinstance(value, dict):
        return {k: _by_content(w, value.get(k), contents, str(k)) for k, w in written.items()}
    if isinstance(written, list) and isinstance(value, list | tuple):
        return [_by_content(w, v, contents, key) for w, v in zip(written, value, strict=True)]
    if isinstance(value, str):
        if value in contents:
            return CONTENT + contents[value]
        # A file that happens to be called as a split is, or a mode, is not what is meant by it.
        if not (_OF_FILE.search(key) or _LIKE_PATH.search(value)):
            return written
        try:
            if Path(value).is_file():
                with Path(value).open("rb") as file:
                    return CONTENT + hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):  # no name of a file
            pass
    return written


_OF_FILE = re.compile(r"(^|_)(file|path)(s|_?names?)?$", re.IGNORECASE)
"""A key whose value is the path of a file, whatever it looks like."""

_LIKE_PATH = re.compile(r"[/\\]|\.[A-Za-z]\w*$")
"""A text that looks like the path of a file: with a separator or a suffix."""


def _forget(config: dict[str, Any], place: Place) -> None:
    """Take the value in a place away; from a list all of it, as its items are numbered."""
    *parents, last = place
    if isinstance(last, int):
        _forget(config, tuple(parents))
        return
    level: Any = config
    for part in parents:
        level = level.get(part) if isinstance(level, dict) else None
    if isinstance(level, dict):
        level.pop(last, None)


def paths_of(files: Files) -> dict[str, str]:
    """Where each data file is, by the hash of what it says."""
    return {content_hash(e): e.path for group in files.values() for e in group}


def differences(before: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in which two identities or configurations differ, with both values.

    What only one of them has is of no account at the top, where it comes of another version of the
    program, and in code and model, of which it says nothing.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        partial = not path or path[0] in (CODE, MODEL)
        for key in {**before, **now}:
            if not partial or (key in before and key in now):
                yield from differences(
                    before.get(key, "not given"), now.get(key, "not given"), (*path, str(key))
                )
    elif before != now:
        yield path, before, now


def names_of_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In what two identities differ, in words that follow on "another"."""
    names = {
        CODE: lambda path: f"source of {path[1]}",
        MODEL: lambda path: f"{path[1]} of the model",
    }
    found = dict.fromkeys(
        names[path[0]](path) if path[0] in names else path[0]
        for path, one, other in differences(before, now)
        if path != (MODEL, "config") or one.partition(":")[0] == other.partition(":")[0]
    )
    # A file of which more is read says more; that more is read tells why.
    return [name for name in found if f"max_{FILES.get(name)}_samples" not in found]
