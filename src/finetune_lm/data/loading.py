"""From the lines of data files to the data sets of a run."""

from __future__ import annotations

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.files import Files
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.models.loading import LoadedModel, length_limit


def load_datasets(
    files: Files, loaded: LoadedModel, args: DataTrainingArguments
) -> dict[str, list[Dataset]]:
    """The data sets of a run, by what they are for, as a model takes them.

    Raises:
        UserError: If they do not fit the model or the preprocessing.
    """
    limit = length_limit(loaded.model, loaded.tokenizer)
    max_length = min(args.max_length, limit or args.max_length)
    encoder = TextEncoder(
        loaded.tokenizer,
        max_length,
        add_start=loaded.task.starts_texts,
        bos_policy=args.bos_policy,
        append_eos=args.append_eos,
    )
    return {
        dataset_type: [
            Dataset(
                examples,
                encoder,
                loaded.task,
                Preprocessing.of(args, dataset_type),
                num_workers=args.preprocessing_num_workers,
                overwrite_cache=args.overwrite_cache,
                pad_to_length=max_length if args.pad_to_max_length else None,
                ignore_padding=args.ignore_pad_for_token_loss,
            )
            for examples in group
        ]
        for dataset_type, group in files.items()
    }
