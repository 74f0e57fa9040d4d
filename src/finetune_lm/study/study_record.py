"""Which study it is: its name, what its values depend on, and the record of that in its storage."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
)
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.arguments.declared import VALIDATION_LOSS
from finetune_lm.arguments.optimization_arguments import direction_of
from finetune_lm.data.examples import Files
from finetune_lm.errors import UserError
from finetune_lm.runs.directory import as_file_name
from finetune_lm.runs.run_identity import identity_of, names_of_differences
from finetune_lm.study.parameters import Parameter
from finetune_lm.study.storage import StoragePlace

RECORD = "finetune_lm"
"""Under which name a study has its identity and seed."""

_LONGEST_NAME = 120
_WAIT_SECONDS = 30.0


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


@dataclass(frozen=True)
class StudyRecord:
    """What a study says of itself.

    Attributes:
        identity: All that its trials' values depend on, but the seed.
        seed: The seed of all its trials.
    """

    identity: dict[str, Any]
    seed: int

    def describe(self) -> dict[str, Any]:
        """The record in plain types, for a storage."""
        return {"identity": self.identity, "seed": int(self.seed)}


def find_study(
    place: StoragePlace, name: str, mine: StudyRecord, *, load_if_exists: bool
) -> StudyRecord | None:
    """The record of a study that is there already; None if there is none.

    Args:
        place: Where it may be.
        name: Its name.
        mine: What it must be in order to be gone on with.
        load_if_exists: Whether it may be gone on with.

    Raises:
        UserError: If it may not, or is another one.
    """
    if not place.is_there():
        return None
    storage = place.open()
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    if not load_if_exists:
        raise _is_there(place, name)
    return _joined(storage, study_id, place, name, mine)


def begin_study(
    place: StoragePlace,
    name: str,
    mine: StudyRecord,
    direction: str,
    *,
    load_if_exists: bool,
) -> StudyRecord:
    """Begin a study, unless another process has done so meanwhile, and return its record.

    Args:
        place: Where to keep it.
        name: Its name.
        mine: What it is.
        direction: ``minimize`` or ``maximize``.
        load_if_exists: Whether one that is there may be gone on with.

    Raises:
        UserError: If one is there that may not, or is another one.
    """
    storage = place.open()
    directions = [optuna.study.StudyDirection[direction.upper()]]
    try:
        study_id = storage.create_new_study(directions, name)
    except optuna.exceptions.DuplicatedStudyError:
        if not load_if_exists:
            raise _is_there(place, name) from None
        study_id = storage.get_study_id_from_name(name)
        return _joined(storage, study_id, place, name, mine)
    except OSError as error:
        raise _cannot_write(place, error) from error
    try:
        storage.set_study_user_attr(study_id, RECORD, mine.describe())
    except OSError as error:
        raise _cannot_write(place, error) from error
    return mine


def load_study(
    place: StoragePlace, name: str, sampler: BaseSampler, pruner: BasePruner
) -> optuna.Study:
    """A study that is there, with the objects that choose and prune in this process."""
    return optuna.load_study(study_name=name, storage=place.open(), sampler=sampler, pruner=pruner)


def _joined(
    storage: Any, study_id: int, place: StoragePlace, name: str, mine: StudyRecord
) -> StudyRecord:
    """The record of a study that is to be gone on with, if it is the same as this one."""
    # The process that has just begun it puts its record down at once.
    until = time.monotonic() + _WAIT_SECONDS
    while (described := storage.get_study_user_attrs(study_id).get(RECORD)) is None:
        if storage.get_all_trials(study_id, deepcopy=False) or time.monotonic() > until:
            raise UserError(
                f"study {name!r} in {place.shown} was not made by finetune-lm. Give another "
                f"--study_kwargs.study_name."
            )
        time.sleep(0.1)
    record = StudyRecord(described["identity"], described["seed"])
    check_same(record, mine, name, place)
    return record


def check_same(record: StudyRecord, mine: StudyRecord, name: str, place: StoragePlace) -> None:
    """See that the trials of a study can be compared with those of this process.

    Args:
        record: What the study says of itself.
        mine: What this process says.
        name: The study's name.
        place: Where it is kept.

    Raises:
        UserError: If not, naming what is another.
    """
    differing = names_of_differences(record.identity, mine.identity)
    if not isinstance(mine.seed, DrawnSeed) and mine.seed != record.seed:
        differing.append(f"seed ({record.seed}, not {mine.seed})")
    if differing:
        raise UserError(
            f"study {name!r} in {place.shown} was made with another {' and '.join(differing)}, so "
            f"its trials cannot be compared with these. Give another --study_kwargs.study_name."
        )


def _cannot_write(place: StoragePlace, error: OSError) -> UserError:
    return UserError(
        f"study_kwargs.storage {place.shown} cannot be written: {error.strerror or error}."
    )


def _is_there(place: StoragePlace, name: str) -> UserError:
    return UserError(
        f"study {name!r} is in {place.shown} already. To continue it, give "
        "--study_kwargs.load_if_exists; to begin another, give another --study_kwargs.study_name."
    )
