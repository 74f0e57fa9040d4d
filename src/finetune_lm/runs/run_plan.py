"""What a run is to do, worked out and checked before a model is loaded or anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments, config_dict
from finetune_lm.arguments.given_measures import check_regions, columns_of_measures
from finetune_lm.arguments.hooks import CallbackEntry, of_a_run
from finetune_lm.arguments.moved_files import say_where
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import PROBE
from finetune_lm.data.examples import Examples, Files
from finetune_lm.data.files import (
    arguments_of_missing_files,
    check_contrasts,
    check_selection,
    read_files,
)
from finetune_lm.data.units import region_names
from finetune_lm.errors import UserError, users_code
from finetune_lm.full_collections import without_full_collections
from finetune_lm.ranks import world
from finetune_lm.recording.columns import (
    MODE,
    MetadataColumns,
    all_loss_columns,
    check_measure_columns,
)
from finetune_lm.runs import directory as place
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.run_identity import (
    MODEL,
    AllArguments,
    identity_of,
    paths_of,
)
from finetune_lm.runs.same_for_all import check_identity

if TYPE_CHECKING:
    from finetune_lm.models.loading import LoadedModel


@dataclass(frozen=True)
class Plan:
    """What a run is to do.

    Attributes:
        all_args: All arguments.
        files: The data by what they are for.
        loss_files: The data of the losses.
        directory: Where the run writes.
        identity: All that its results depend on; the model's part is added when it is loaded.
        earlier: The run that is resumed, if one is.
        losses: The names of the loss columns.
        metadata: The metadata columns of the training and validation data.
        test_metadata: Those of the test data.
        probe_metadata: Those of the probes.
    """

    all_args: AllArguments
    files: Files
    loss_files: list[Examples]
    directory: Path
    identity: dict[str, Any]
    earlier: EarlierRun | None
    losses: Sequence[str]
    metadata: MetadataColumns
    test_metadata: MetadataColumns
    probe_metadata: MetadataColumns

    @property
    def used(self) -> Files:
        """All data files, those of the losses under ``loss``."""
        return {**self.files, "loss": self.loss_files}

    @property
    def table_path(self) -> Path:
        """Where test results go."""
        model_args, data_args, _ = self.all_args
        prefix = data_args.test_output_file_prefix
        return self.directory / place.results_name(prefix, model_args.model_name_or_path)

    @property
    def callbacks(self) -> list[CallbackEntry]:
        """Those at points that the run comes to."""
        trains, tests = bool(self.files["train"]), bool(self.files["test"])
        return of_a_run(self.all_args[0].callbacks(), trains=trains, tests=tests)

    def check_identity(self) -> None:
        """See that a run that is resumed is what it was.

        Raises:
            UserError: Naming all that is not.
        """
        if self.earlier is not None:
            self.earlier.check(self.identity, paths_of(self.used))

    def check_model(self, loaded: LoadedModel, device: str) -> None:
        """The same once the model is loaded, which is part of the identity from then on."""
        self.identity[MODEL] = loaded.origin
        self.check_identity()
        if self.earlier is not None:
            self.earlier.warn_of_surroundings(device)


@without_full_collections()
def make_plan(all_args: AllArguments, earlier: EarlierRun | None = None) -> Plan:
    """Work out what a run is to do.

    Args:
        all_args: All arguments.
        earlier: The run that is resumed, if one is.

    Raises:
        UserError: If something is wrong that can be found without a model.
    """
    model_args, data_args, _ = all_args
    files, loss_files = _read_data(data_args, earlier)
    columns = columns_of(data_args, files, [MODE] if model_args.has_two_modes else [])
    identity = identity_of(all_args, {**files, "loss": loss_files})
    check_identity(identity)
    if earlier is None:
        names = [f.name for f in files["train"]]
        directory = world().decided(
            place.choose_output_dir, data_args.output_dir, model_args.model_name_or_path, names
        )
        world().decided(place.check_output_dir, directory, data_args, identity)
    else:
        directory = earlier.directory
    plan = Plan(all_args, files, loss_files, directory, identity, earlier, *columns)
    if earlier is not None:
        plan.check_identity()
        earlier.tell_of_moved_files(config_dict(*all_args))
    if files["test"]:
        place.check_results_name(data_args.test_output_file_prefix, model_args.model_name_or_path)
    return plan


def columns_of(
    args: DataTrainingArguments, files: Files, besides: Sequence[str] = ()
) -> tuple[Sequence[str], MetadataColumns, MetadataColumns, MetadataColumns]:
    """What the tables have beside what all have: losses, and metadata of learning, tests, probes.

    Args:
        args: The arguments for data and training.
        files: The data.
        besides: Columns that only tables of some runs have.

    Raises:
        UserError: If a column has the name of another, a contrast has nothing to compare, or a
            measure is for a region that no data have.
    """
    check_selection(args, files)
    check_contrasts(args, files)
    losses = all_loss_columns(args.loss_classes) if files["train"] else []
    measures = list(columns_of_measures(args, args.measures))
    check_measure_columns(measures, [*losses, *besides])
    others = [*measures, *besides]
    regions = {
        kind: region_names(values for file in group for values in file.metadata)
        for kind, group in files.items()
        if group
    }
    check_regions(args, regions)
    return (
        losses,
        MetadataColumns.of_files([*files["train"], *files["validation"]], [*losses, *others]),
        MetadataColumns.of_files(files["test"], others),
        MetadataColumns.of_files(files[PROBE], others),
    )


def _read_data(
    args: DataTrainingArguments, earlier: EarlierRun | None
) -> tuple[Files, list[Examples]]:
    """Read the data files, and those of the losses.

    Raises:
        UserError: With every problem of every file.
    """
    try:
        files = read_files(args)
        return files, read_loss_files(args) if files["train"] else []
    except UserError as error:
        missing = arguments_of_missing_files(args)
        if earlier is None or not missing:
            raise
        raise UserError(*error.problems, say_where(earlier.directory, missing)) from error


def read_loss_files(args: DataTrainingArguments) -> list[Examples]:
    """Read the data files that the losses of a training run use.

    Raises:
        UserError: With every problem of every file.
    """
    files: dict[str, Examples] = {}
    problems: list[str] = []
    for dataset_type, classes in args.loss_classes.items():
        for cls, kwargs in zip(classes, args.kwargs_of_losses(dataset_type), strict=True):
            if (read := getattr(cls, "read_files", None)) is None:
                continue
            try:
                with users_code(f"loss class {short_name(cls)}"):
                    for examples in read(**kwargs):
                        # One loss may use more lines of a file than another.
                        known = files.get(examples.path)
                        if known is None or len(known) < len(examples):
                            files[examples.path] = examples
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return list(files.values())
