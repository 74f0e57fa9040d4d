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
)
from finetune_lm.arguments.declared import VALIDATION_LOSS
from finetune_lm.arguments.optimization_arguments import direction_of
from finetune_lm.data.files import Files
from finetune_lm.runs.directory import as_file_name
from finetune_lm.runs.identity import identity_of
from finetune_lm.study.parameters import Parameter

_LONGEST_NAME = 120


def study_identity(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments,
    parameters: Sequence[Parameter],
    files: Files,
) -> dict[str, Any]:
    """All that the values of a study's trials depend on, but seed and weights, in plain types.

    Files count by what they say, not by where they are, so that machines may keep them in different
    places. What is searched for counts by its range.
    """
    all_args = (model_args, data_args, optimization_args)
    places = [parameter.place for parameter in parameters]
    identity = identity_of(all_args, files, VALIDATION_LOSS, without=places, named=False)
    identity.pop("seed", None)  # the study has it beside its identity
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
