"""A study in its storage: found, begun, or gone on with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.errors import UserError
from finetune_lm.runs.identity import names_of_differences
from finetune_lm.study.storage import StoragePlace

RECORD = "finetune_lm"
"""Under which name a study has its identity and seed."""

_WAIT_SECONDS = 30.0


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
        f"study {name!r} is in {place.shown} already. To go on with it give "
        f"--study_kwargs.load_if_exists, to begin another give another --study_kwargs.study_name."
    )
