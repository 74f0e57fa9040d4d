"""Data sets in the roles that they have in a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.data_training_arguments import LOSS_DATASET_TYPES
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.files import distinct_names
from finetune_lm.evaluation.forward import Forward
from finetune_lm.evaluation.losses import Losses
from finetune_lm.evaluation.token_rows import RunColumns, TokenRows
from finetune_lm.evaluation.unrecorded import NoRows
from finetune_lm.models.compiling import is_compiled
from finetune_lm.models.loading import LoadedModel
from finetune_lm.randomness import LOSSES, stream_seed


@dataclass(frozen=True)
class Split:
    """A data set in its role in a run.

    Attributes:
        dataset_type: ``train``, ``validation`` or ``test``.
        dataset: The data.
        batch_size: How many examples go to a batch.
        forward: Calls the model with its batches.
        rows: Makes its rows of the tables.
        losses: What is computed of each batch; None for testing.
    """

    dataset_type: str
    dataset: Dataset
    batch_size: int
    forward: Forward
    rows: TokenRows
    losses: Losses | None = None


def make_splits(
    dataset_type: str,
    datasets: Mapping[str, Sequence[Dataset]],
    loaded: LoadedModel,
    args: DataTrainingArguments,
    columns: RunColumns | None,
) -> list[Split]:
    """Data sets of one type with what is computed and recorded of them.

    Args:
        dataset_type: ``train``, ``validation`` or ``test``.
        datasets: All data sets by type.
        loaded: The model.
        args: Batch sizes and losses.
        columns: What all rows of their table have in common; None where there is no table.
    """
    batch_size: int = getattr(args, f"per_device_{dataset_type}_batch_size")
    group = datasets[dataset_type]
    if not group:
        return []
    has_losses = dataset_type in args.loss_classes
    losses = _losses(dataset_type, loaded, args) if has_losses else None
    return [
        Split(
            dataset_type,
            dataset,
            batch_size,
            Forward(
                loaded.model,
                dataset,
                batch_size,
                needs_logits=losses is not None and losses.need_logits,
                fast=args.fast and not is_compiled(loaded.model),
            ),
            TokenRows(dataset, dataset_type, columns, name) if columns else NoRows(),
            losses,
        )
        for dataset, name in zip(group, distinct_names([d.path for d in group]), strict=True)
    ]


def _losses(dataset_type: str, loaded: LoadedModel, args: DataTrainingArguments) -> Losses:
    classes = args.loss_classes[dataset_type]
    return Losses(
        classes,
        args.kwargs_of_losses(dataset_type),
        args.loss_reduction_fns[dataset_type],
        loaded.model,
        loaded.tokenizer,
        seeds=[
            stream_seed(args.seed, LOSSES, LOSS_DATASET_TYPES.index(dataset_type), place)
            for place in range(len(classes))
        ],
    )
