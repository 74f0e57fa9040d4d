"""What a process that does several runs keeps from one to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_lm.data.files import Files
from finetune_lm.runs import preparing

if TYPE_CHECKING:
    import accelerate

    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel


class Pack:
    """Loads what the runs of a process need, each as if it were the only one."""

    def load(
        self, model_args: ModelArguments, data_args: DataTrainingArguments, files: Files
    ) -> tuple[accelerate.Accelerator, LoadedModel, dict[str, list[Dataset]]]:
        """What `preparing.load` returns."""
        return preparing.load(model_args, data_args, files)
