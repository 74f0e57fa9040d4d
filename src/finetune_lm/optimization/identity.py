"""What makes a study the one it is: its name, and all that its trials' values depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
)
from finetune_lm.arguments.declared import VALIDATION_LOSS, what_affects
from finetune_lm.arguments.study_problems import direction_of
from finetune_lm.data.files import Files, file_hashes
from finetune_lm.optimization.parameters import Parameter
from finetune_lm.results.output_directory import as_file_name

_LONGEST_NAME = 120


def study_identity(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments,
    parameters: Sequence[Parameter],
    files: Files,
) -> dict[str, Any]:
    """All that the values of a study's trials depend on, but the seed, in plain types.

    Files count by what they say, not by where they are, so that machines may keep them in different
    places. What is searched for counts by its range.
    """
    config = config_dict(model_args, data_args, optimization_args)
    for parameter in parameters:
        _forget(config, parameter.place)
    identity = {}
    for args in (model_args, data_args, optimization_args):
        for name, others in what_affects(VALIDATION_LOSS, type(args)).items():
            if name in config:
                identity[name] = config[name]
            for key in others:
                identity[name].pop(key, None)
    identity.pop("seed", None)  # the study has it beside its identity
    hashes = file_hashes(files)
    for dataset_type in ("train", "validation"):
        if f"{dataset_type}_file" in config:
            identity[f"{dataset_type}_file"] = [hashes[f.path] for f in files[dataset_type]]
    identity["direction"] = direction_of(optimization_args.study_kwargs)
    identity["params"] = {parameter.name: parameter.describe() for parameter in parameters}
    # As it is when it comes back from a storage.
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def study_name(
    model_args: ModelArguments,
    optimization_args: OptimizationArguments,
    identity: Mapping[str, Any],
    files: Files,
) -> str:
    """The study's name: as given, or made of what it is about.

    A name that is made holds model, training file, direction and parameters, and a few letters that
    stand for everything else that the values of its trials depend on.
    """
    given = optimization_args.study_kwargs.get("study_name")
    if given is not None:
        return str(given)
    readable = "_".join(
        [
            as_file_name(model_args.model_name_or_path).strip("-."),
            *(file.name for file in files["train"]),
            str(identity["direction"]),
            *identity["params"],
        ]
    )
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{readable[:_LONGEST_NAME]}_{digest}"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names of what differs in two identities.

    What only one of them has is of no account: it may come of another version of the program.
    """
    return [name for name in one if name in other and one[name] != other[name]]


def _forget(config: dict[str, Any], place: tuple[str | int, ...]) -> None:
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
