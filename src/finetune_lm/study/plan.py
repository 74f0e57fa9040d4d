"""What a study is to do, worked out and checked before a model is loaded or anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from finetune_lm.arguments import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.arguments.checking import show
from finetune_lm.arguments.declared import default_of
from finetune_lm.arguments.optimization_arguments import direction_of
from finetune_lm.arguments.references import resolve_references, short_name
from finetune_lm.data.examples import Files
from finetune_lm.data.files import check_selection, read_files
from finetune_lm.errors import UserError, users_code
from finetune_lm.messages import warn
from finetune_lm.runs.directory import JOURNAL
from finetune_lm.runs.run_plan import read_loss_files
from finetune_lm.study.objects import make_object, without_foreign_defaults
from finetune_lm.study.parameters import Parameter, with_values
from finetune_lm.study.sampling import check_sampler, make_pruner, make_sampler
from finetune_lm.study.search_space import search_space
from finetune_lm.study.storage import StoragePlace, storage_place
from finetune_lm.study.study_directory import check_study_dir, choose_study_dir
from finetune_lm.study.study_record import study_identity, study_name


@dataclass(frozen=True)
class Plan:
    """What a study is to do.

    Attributes:
        model_args: Which model.
        data_args: The arguments for data and training without a study, and without test files.
        optimization_args: How to search.
        files: The data.
        parameters: What is searched for.
        name: The study's name.
        identity: All that its trials' values depend on, but the seed.
        study_kwargs: What samplers and pruners are made with.
        output_dir: Where this process writes.
        place: Where the study is kept.
        storage: The same for people, as it is put on record.
        optimize_kwargs: For Optuna's ``optimize``.
    """

    model_args: ModelArguments
    data_args: DataTrainingArguments
    optimization_args: OptimizationArguments
    files: Files
    parameters: Sequence[Parameter]
    name: str
    identity: dict[str, Any]
    study_kwargs: dict[str, Any]
    output_dir: Path
    place: StoragePlace
    storage: str
    optimize_kwargs: dict[str, Any]

    @property
    def direction(self) -> str:
        """``minimize`` or ``maximize``."""
        return direction_of(self.study_kwargs)

    @property
    def load_if_exists(self) -> bool:
        """Whether a study that is there may be gone on with."""
        return bool(self.study_kwargs.get("load_if_exists"))

    def seeded(self, seed: int) -> Plan:
        """The same with the seed that all trials of the study have."""
        return replace(self, data_args=with_values(self.data_args, {("seed",): int(seed)}))


def make_plan(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments,
) -> Plan:
    """Work out what a study is to do.

    Raises:
        UserError: If something is wrong that can be found without a model.
    """
    if not data_args.train_file:
        raise UserError("do_optimize needs a train_file and a validation_file.")
    if data_args.test_file:
        warn(
            "test_file is not used in a study: what is chosen by a test set can no longer be "
            "tested on it."
        )
        data_args = with_values(data_args, {("test_file",): None})
    study_kwargs = _without_foreign_defaults(optimization_args.study_kwargs)
    files = {**read_files(data_args), "loss": read_loss_files(data_args)}
    check_selection(data_args, files)
    parameters = search_space(optimization_args.params, data_args, model_args)
    # These are made again when the seed is known; what is wrong with them is told now.
    n_trials = optimization_args.optimize_kwargs.get("n_trials")
    check_sampler(make_sampler(study_kwargs, data_args.seed), parameters, n_trials)
    make_pruner(study_kwargs)
    if direction_of(study_kwargs) == "maximize":
        warn(
            "study_kwargs.direction is maximize: the value of a trial is its lowest validation "
            "loss, and the study looks for the trial with the highest."
        )

    identity = study_identity(model_args, data_args, optimization_args, parameters, files)
    name = study_name(model_args, optimization_args, identity, files)
    output_dir = choose_study_dir(
        data_args.output_dir,
        model_args.model_name_or_path,
        [file.name for file in files["train"]],
        study_kwargs.get("study_name"),
        has_storage=study_kwargs.get("storage") is not None,
    )
    journal = output_dir / JOURNAL
    place = storage_place(study_kwargs, journal)
    # A directory may be moved with the journal in it.
    storage = JOURNAL if place.shown == str(journal.absolute()) else place.shown
    check_study_dir(output_dir, name, storage)
    return Plan(
        model_args,
        data_args,
        optimization_args,
        files,
        parameters,
        name,
        identity,
        study_kwargs,
        output_dir,
        place,
        storage,
        _optimize_kwargs(optimization_args.optimize_kwargs),
    )


def _without_foreign_defaults(study_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The study's keyword arguments without those that only the default classes take."""
    [declared] = [f for f in fields(OptimizationArguments) if f.name == "study_kwargs"]
    defaults = resolve_references(default_of(declared))
    return without_foreign_defaults(study_kwargs, defaults, "study_kwargs")


def _optimize_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of ``optimize``, with objects of the callbacks."""
    kwargs = {
        name: value
        for name, value in given.items()
        if name not in ("catch", "callbacks", "callbacks_kwargs", "n_jobs")
    }
    callbacks = given.get("callbacks") or []
    its_kwargs = given.get("callbacks_kwargs") or {}
    made = [
        make_object(
            each, its_kwargs.get(short_name(each)), f"optimize_kwargs.callbacks.{short_name(each)}"
        )
        for each in (callbacks if isinstance(callbacks, list | tuple) else [callbacks])
    ]
    for each in made:
        if not isinstance(each, Callable):  # type: ignore[arg-type]
            raise UserError(
                f"optimize_kwargs.callbacks must be functions, or classes whose objects can be "
                f"called, but got {show(each)}."
            )
    return {**kwargs, "callbacks": [_named(each) for each in made]}


def _named(callback: Callable[..., Any]) -> Callable[..., Any]:
    """A callback whose errors say whose they are."""
    name = f"optimize_kwargs.callbacks {short_name(callback)}"

    def named(study: Any, trial: Any) -> None:
        with users_code(name):
            callback(study, trial)

    return named
