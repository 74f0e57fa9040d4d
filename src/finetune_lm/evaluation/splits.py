"""Data sets in the roles that they have in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.given_measures import (
    GivenMeasure,
    columns_of_measures,
    given_measures,
)
from finetune_lm.constants import LOSS_DATASET_TYPES, PROBE
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.examples import distinct_names
from finetune_lm.data.seen import seen_before
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.evaluation.made_measures import column_types, make_measures
from finetune_lm.evaluation.pair_numbers import PairNumbers
from finetune_lm.full_collections import without_full_collections
from finetune_lm.messages import say_once
from finetune_lm.models.compiling import is_compiled
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.vocabulary import padding_id
from finetune_lm.randomness import LOSSES, stream_seed
from finetune_lm.ranks import world
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
    """

    dataset_type: str
    dataset: Dataset
    batch_size: int
    forward: Forward
    rows: TokenRows | None
    losses: Losses | None = None
    pairs: PairNumbers | None = None

    def warn_if_empty(self) -> None:
        """Say so, once, if all of the data were gone through and no token has a row."""
        if self.rows is not None:
            self.rows.warn_if_empty()


@dataclass(frozen=True)
class TrainingSplits:
    """The data of a training.

    Attributes:
        train: What is learned from.
        validation: What the model is judged by.
        probes: What is measured besides.
    """

    train: Split
    validation: Split
    probes: Sequence[Split] = ()

    def by_name(self) -> dict[str, Split]:
        """All of them; probes are numbered."""
        probes = {f"{PROBE} {number}": split for number, split in enumerate(self.probes)}
        return {"train": self.train, "validation": self.validation, **probes}


@without_full_collections()
def splits_of(
    plan: Plan, loaded: LoadedModel, datasets: Mapping[str, Sequence[Dataset]]
) -> tuple[TrainingSplits | None, list[Split]]:
    """The data of a run, with what is recorded of them: of the training, if any, and of tests."""
    args = plan.all_args[1]
    columns = RunColumns.of(loaded, args.seed, plan.metadata, plan.losses)
    seen_in = seen_before(plan.files, loaded.task)
    of_tests = RunColumns.of(loaded, args.seed, plan.test_metadata, seen_in=seen_in)
    of_probes = RunColumns.of(loaded, args.seed, plan.probe_metadata, seen_in=seen_in)
    columns, of_tests, of_probes = (
        replace(
            _with_measures(each, columns_of_measures(args, dataset_types)),
            has_baseline=has_baseline,
        )
        for each, dataset_types, has_baseline in (
            (columns, ("train", "validation"), args.eval_before_training),
            (of_tests, ("test",), False),
            (of_probes, (PROBE,), True),
        )
    )
    learned = make_splits("train", datasets, loaded, args, columns)
    judged = make_splits("validation", datasets, loaded, args, columns)
    tests = make_splits("test", datasets, loaded, args, of_tests)
    # Last, so that nothing is found out by them of which the others make use.
    probes = make_splits(PROBE, datasets, loaded, args, of_probes)
    return (TrainingSplits(learned[0], judged[0], probes) if learned else None), tests


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
        loaded: The model.
        args: Batch sizes and losses.
        columns: What all rows of their table have in common; None where there is no table.
    """
    batch_size: int = getattr(args, f"per_device_{dataset_type}_batch_size") * world().size
    group = datasets[dataset_type]
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
        )
        for dataset, name in zip(group, distinct_names([d.path for d in group]), strict=True)
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
