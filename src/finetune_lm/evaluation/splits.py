"""Data sets in the roles that they have in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.given_measures import (
    GivenMeasure,
    columns_of_measures,
    given_measures,
)
from finetune_lm.constants import DATASET_TYPES, LOSS_DATASET_TYPES, PROBE
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.examples import distinct_names
from finetune_lm.data.feeding import files_in_mode
from finetune_lm.data.seen import seen_before, tell_of_seen
from finetune_lm.errors import UserError
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.evaluation.made_measures import column_types, make_measures
from finetune_lm.evaluation.pair_numbers import PairNumbers
from finetune_lm.full_collections import without_full_collections
from finetune_lm.messages import say_once
from finetune_lm.models.compiling import is_compiled
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.vocabulary import padding_id
from finetune_lm.randomness import LOSSES, OTHER_MODE, stream_seed
from finetune_lm.ranks import world
from finetune_lm.recording.recorder import named_in_mode
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.runs.run_plan import Plan
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer, scorer_of
from finetune_lm.scoring.visibility import cost_of_padding


@dataclass(frozen=True)
class Split:
    """A data set in its role in a run.

    Attributes:
        dataset_type: ``train``, ``validation``, ``test`` or ``probe``.
        dataset: The data.
        batch_size: How many examples go to a batch, over all ranks.
        forward: Calls the model with its batches.
        rows: Makes its rows of the tables; None where there is no table.
        losses: What is computed of each batch; None for tests and probes.
        pairs: Scores its pairs, if epochs are judged by them.
        mode: The mode in which the model is called with it, if it has two; else None.
        own_seed: What that follows from which is drawn when its batches are made, where it does not
            come from the generators of the run.
    """

    dataset_type: str
    dataset: Dataset
    batch_size: int
    forward: Forward
    rows: TokenRows | None
    losses: Losses | None = None
    pairs: PairNumbers | None = None
    mode: str | None = None
    own_seed: int | None = None

    @property
    def name(self) -> str:
        """What tells it from the others of a training: its type, and its mode, if there are two."""
        return named_in_mode(self.dataset_type, self.mode)

    def warn_if_empty(self) -> None:
        """Say so, once, if all of the data were gone through and no token has a row."""
        if self.rows is not None:
            self.rows.warn_if_empty()


@dataclass(frozen=True)
class TrainingSplits:
    """The data of a training.

    Attributes:
        train: What is learned from, in each mode in which the model learns.
        validation: What the model is judged by, in each of its modes.
        probes: What is measured besides.
        selecting: The modes whose validation chooses the best epoch.

    Of a model that has one mode, that is None.
    """

    train: Mapping[str | None, Split]
    validation: Mapping[str | None, Split]
    probes: Sequence[Split] = ()
    selecting: Sequence[str | None] = (None,)

    def __post_init__(self) -> None:
        if len({len(split.dataset) for split in self.train.values()}) > 1:
            raise UserError(
                "a model that learns in both of its modes needs the same examples in each, but "
                "data_preprocessing_fn.train makes others for one of them. Give "
                "--data_preprocessing_fn_strategy.train per_batch."
            )
        for mode in self.selecting:
            data = self.validation[mode].dataset
            if mode is not None and data.task.learns_from_masks and data.hides_nothing:
                raise UserError(
                    f"{data.path} must have masks if the best epoch is chosen in the {mode} mode, "
                    f"but has none: its loss would be that of repeating what the model sees. "
                    f"Give --data_preprocessing_fn.validation, or another --select_mode."
                )

    @property
    def first(self) -> Split:
        """The training data in one of the modes."""
        return next(iter(self.train.values()))

    def learned_from(self) -> list[Split]:
        """What losses are computed of: training data and validation data."""
        return [*self.train.values(), *self.validation.values()]

    def by_name(self) -> dict[str, Split]:
        """All of them; probes are numbered."""
        probes = {f"{PROBE} {number}": split for number, split in enumerate(self.probes)}
        return {**{split.name: split for split in self.learned_from()}, **probes}


@without_full_collections()
def splits_of(
    plan: Plan, loaded: LoadedModel, datasets: Mapping[str, Sequence[Dataset]]
) -> tuple[TrainingSplits | None, list[Split]]:
    """The data of a run, with what is recorded of them: of the training, if any, and of tests."""
    args = plan.all_args[1]
    learned, judged, tests, probes = [], [], [], []
    seen = {
        each.mode: seen_before(files_in_mode(plan.files, each), each.task) for each in loaded.modes
    }
    tell_of_seen(plan.files, seen)
    for each in loaded.modes:
        of_learning, of_tests, of_probes = _columns_of(plan, each, seen[each.mode])
        if each.learns:
            learned.append(make_splits("train", datasets, each, args, of_learning))
        judged.append(make_splits("validation", datasets, each, args, of_learning))
        tests.append(make_splits("test", datasets, each, args, of_tests))
        # Last, so that nothing is found out by them of which the others make use.
        probes.append(make_splits(PROBE, datasets, each, args, of_probes))
    # One file after the other, each in both modes.
    testing, probing = (
        [split for of_file in zip(*each, strict=True) for split in of_file]
        for each in (tests, probes)
    )
    if not any(judged):
        return None, testing
    selecting = plan.all_args[0].selecting_modes()
    return TrainingSplits(by_mode(learned), by_mode(judged), probing, selecting), testing


def by_mode(groups: Iterable[Sequence[Split]]) -> dict[str | None, Split]:
    """Data sets of which there is one of each mode, or none, by their modes."""
    return {split.mode: split for group in groups for split in group}


def _columns_of(
    plan: Plan, loaded: LoadedModel, seen_in: Mapping[str, Sequence[str | None]]
) -> list[RunColumns]:
    """The columns of training and validation, of tests, of probes, of a model in a mode."""
    args = plan.all_args[1]
    columns = RunColumns.of(loaded, args.seed, plan.metadata, plan.losses)
    of_tests = RunColumns.of(loaded, args.seed, plan.test_metadata, seen_in=seen_in)
    of_probes = RunColumns.of(loaded, args.seed, plan.probe_metadata, seen_in=seen_in)
    return [
        replace(
            _with_measures(each, columns_of_measures(args, dataset_types)),
            has_baseline=has_baseline,
        )
        for each, dataset_types, has_baseline in (
            (columns, ("train", "validation"), args.eval_before_training),
            (of_tests, ("test",), False),
            (of_probes, (PROBE,), True),
        )
    ]


def _with_measures(columns: RunColumns, measures: Mapping[str, GivenMeasure]) -> RunColumns:
    over_word = {name: measure.over_word for name, measure in measures.items()}
    return replace(columns, measures=column_types(measures), over_word=over_word)


def make_splits(
    dataset_type: str,
    datasets: Mapping[str, Sequence[Dataset]],
    loaded: LoadedModel,
    args: DataTrainingArguments,
    columns: RunColumns | None,
) -> list[Split]:
    """Data sets of one type with what is computed and recorded of them.

    Args:
        dataset_type: ``train``, ``validation``, ``test`` or ``probe``.
        datasets: All data sets by type.
        loaded: The model, in one of its modes. Data that are for another are left out.
        args: Batch sizes and losses.
        columns: What all rows of their table have in common; None where there is no table.
    """
    batch_size: int = getattr(args, f"per_device_{dataset_type}_batch_size") * world().size
    group = [each for each in datasets[dataset_type] if each.task is loaded.task]
    if not group:
        return []
    losses = None
    if dataset_type in args.loss_classes:
        number = LOSS_DATASET_TYPES.index(dataset_type)
        given = zip(
            args.loss_classes[dataset_type], args.kwargs_of_losses(dataset_type), strict=True
        )
        entries = [
            LossEntry(cls, kwargs, stream_seed(args.seed, LOSSES, number, place))
            for place, (cls, kwargs) in enumerate(given)
        ]
        reduce = args.loss_reduction_fns[dataset_type]
        losses = Losses(entries, reduce, loaded.model, loaded.tokenizer)
    fast = args.fast and not is_compiled(loaded.model)
    # What is found out by probes must not decide how the model is called with other data.
    find = Scorer if dataset_type == PROBE else scorer_of
    scorer = find(loaded.model, loaded.task, fast=fast)
    # Where there is no table, nothing is measured.
    measures = make_measures(given_measures(args, dataset_type), loaded) if columns else []
    return [
        Split(
            dataset_type,
            dataset,
            batch_size,
            Forward(
                scorer,
                dataset,
                batch_size,
                needs=Needs(losses is not None and losses.need_logits, measures),
                pads=not _must_not_pad(dataset_type, dataset, loaded),
            ),
            TokenRows(dataset, dataset_type, columns, name, measures) if columns else None,
            losses,
            PairNumbers.of(dataset_type, dataset, loaded, args),
            loaded.mode,
            stream_seed(args.seed, OTHER_MODE, DATASET_TYPES.index(dataset_type), number)
            if loaded.draws_apart and dataset.draws
            else None,
        )
        for number, (dataset, name) in enumerate(
            zip(group, distinct_names([d.path for d in group]), strict=True)
        )
    ]


def _must_not_pad(dataset_type: str, dataset: Dataset, loaded: LoadedModel) -> bool:
    """Whether texts go in unpadded, since padding would change what they cost.

    A model is asked once, by the first of its data sets whose texts differ in length. In training
    padding stays: without it a step would take many calls.
    """
    if dataset.pad_to_length:
        # A text then has the same padding in any batch.
        return False
    if loaded.cost_of_padding is None and len(dataset.shortest) < dataset.longest:
        loaded.cost_of_padding = cost_of_padding(
            loaded.task,
            loaded.model,
            dataset.shortest.tolist(),
            padding_id(dataset.tokenizer),
            dataset.longest,
            is_exact=loaded.is_exact,
        )
    if not loaded.cost_of_padding:
        return False
    leaks = (
        f"padding changes the surprisals of {loaded.name} (by up to {loaded.cost_of_padding:.2g} "
        f"bits in one text of {dataset.name})"
    )
    if dataset_type == "train":
        say_once(
            f"warning: {leaks}. In training its losses and rows depend on the rest of the batch; "
            "--per_device_train_batch_size 1 avoids that."
        )
        return False
    if not dataset.ignore_padding:
        say_once(
            f"warning: {leaks}. Padding is kept, since --ignore_pad_for_token_loss False counts it."
        )
        return False
    say_once(
        f"padding changes the surprisals of {loaded.name}, so in validation and tests texts go "
        "in without padding, grouped by length."
    )
    return True
