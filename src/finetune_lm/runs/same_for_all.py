"""Ranks of a run must have the same arguments, files and programs, or they drift apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import config_dict
from finetune_lm.data.examples import Files, content_hash
from finetune_lm.data.fingerprints import data_fingerprint
from finetune_lm.errors import UserError
from finetune_lm.models.weights import hash_of_weights
from finetune_lm.ranks import world
from finetune_lm.runs.record import versions
from finetune_lm.runs.run_identity import (
    FILES,
    MODEL,
    AllArguments,
    differences,
    names_of_differences,
)

if TYPE_CHECKING:
    from finetune_lm.arguments import ModelArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel

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
            f"rank {rank} differs from rank 0 in {' and '.join(names)}"
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


def identity_of_model(loaded: LoadedModel, args: ModelArguments) -> dict[str, Any]:
    """What all ranks must have of a model: as it was loaded, and as its modifiers have left it.

    These may draw numbers that follow from no seed.
    """
    if world().size == 1:
        return {}
    identity: dict[str, Any] = {MODEL: loaded.origin}
    if args.model_modifier_fns:
        identity["weights of the modified model"] = hash_of_weights(loaded.model)
    return identity


def check_tokens(datasets: Mapping[str, Iterable[Dataset]]) -> None:
    """The same of what the model is fed, which follows from tokenizer and preprocessing too."""
    if world().size == 1:
        return
    check_identity(
        {
            f"tokens of the {kind} data": [data_fingerprint(dataset) for dataset in of_kind]
            for kind, of_kind in datasets.items()
        }
    )


def _check(clauses: Sequence[str]) -> None:
    if clauses:
        raise UserError(
            "all processes of a run must have the same arguments, files and programs, but "
            f"{clauses[0]}."
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
            found.append(name + ("" if hidden else f" ({other}, not {one})"))
        if found:
            yield f"rank {rank} differs from rank 0 in {' and '.join(found)}"


@cache
def _own_source() -> str:
    """What stands for the source of this package, which may differ where its version does not."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
