"""Ranks of a run must have the same arguments, files and programs, or they drift apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from finetune_lm.arguments import config_dict
from finetune_lm.data.examples import Files, content_hash
from finetune_lm.errors import UserError
from finetune_lm.ranks import world
from finetune_lm.runs.record import versions
from finetune_lm.runs.run_identity import (
    FILES,
    AllArguments,
    differences,
    names_of_differences,
)

_OF_THE_PLACE = frozenset(
    {
        *("cache_dir", "token", "overwrite_cache", "preprocessing_num_workers"),
        *FILES,
        *("loss_classes_kwargs", "output_dir"),
    }
)
"""Arguments that may differ from machine to machine; of files only what they say must be the same,
for which `check_identity` looks. Where all of them write the first decides."""

_PROGRAM = "source of finetune_lm"


def check_programs_and_arguments(all_args: AllArguments) -> None:
    """See that all ranks are the same program, and were told the same to do.

    Raises:
        UserError: If not, on all of them, naming the first that has something else, and what.
    """
    arguments = {k: v for k, v in config_dict(*all_args).items() if k not in _OF_THE_PLACE}
    mine = {"versions": {**versions(), _PROGRAM: _own_source()}, "arguments": arguments}
    _check([*_clauses(world().gather(mine))])


def check_identity(identity: Mapping[str, Any]) -> None:
    """The same of all that the results of a run depend on, such as what its data files say."""
    _check(
        [
            f"rank {rank} has another {' and '.join(names)}"
            for rank, first, now in _each(world().gather(dict(identity)))
            if (names := names_of_differences(first, now))
        ]
    )


def check_files(files: Files) -> None:
    """The same of data files."""
    check_identity(
        {
            name: [content_hash(examples) for examples in files.get(kind, [])]
            for name, kind in FILES.items()
        }
    )


def _check(clauses: Sequence[str]) -> None:
    if clauses:
        raise UserError(
            "all processes of a run must have the same arguments, files and programs, but "
            f"{clauses[0]} than rank 0."
        )


def _each(values: Sequence[Any]) -> Iterator[tuple[int, Any, Any]]:
    for rank, value in enumerate(values[1:], start=1):
        yield rank, values[0], value


def _clauses(values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a rank has that is another than the first has, the first such rank first."""
    for rank, first, now in _each(values):
        found = []
        for path, one, other in differences(first, now):
            name = ".".join(path[1:])
            hidden = path[0] == "versions" and name == _PROGRAM
            found.append(f"another {name}" + ("" if hidden else f" ({other}, not {one})"))
        if found:
            yield f"rank {rank} has {' and '.join(found)}"


@cache
def _own_source() -> str:
    """What stands for the source of this package, which may differ where its version does not."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
