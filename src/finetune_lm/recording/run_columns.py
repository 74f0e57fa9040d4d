"""What all rows of a table have in common, and which columns it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import pyarrow as pa

from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import Task
from finetune_lm.models.vocabulary import Vocabulary, vocabulary_of
from finetune_lm.recording.columns import (
    BASELINE_SURPRISAL,
    MODE,
    SEQUENCE_TYPE,
    STEP,
    MetadataColumns,
    table_columns,
)


@dataclass(frozen=True)
class RunColumns:
    """What all rows of a run have in common.

    Attributes:
        model_name: The model as named on the command line.
        task: What kind it is.
        n_params: Its size, readable.
        seed: The run's seed.
        vocabulary: The tokenizer's entries.
        metadata: The metadata columns of the table.
        losses: The names of its loss columns, in order. A table with losses has the learning rate
            as well, another one tells what was seen before.
        seen_in: For each data file by its path, in which file each of its lines stood that was
            learned from or that chose the epoch; None where it stood in neither.
        measures: The type of each column of a measure, in order.
        over_word: What a table of words takes of each of them: ``sum``, ``first`` or nothing.
        has_baseline: Whether there is a pass before the training, with which others are compared.
        mode: The mode of a model that has two, else None.
    """

    model_name: str
    task: Task
    n_params: str
    seed: int
    vocabulary: Vocabulary
    metadata: MetadataColumns
    losses: Sequence[str] = ()
    seen_in: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    measures: Mapping[str, pa.DataType] = field(default_factory=dict)
    over_word: Mapping[str, str | None] = field(default_factory=dict)
    has_baseline: bool = False
    mode: str | None = None

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        seed: int,
        metadata: MetadataColumns,
        losses: Sequence[str] = (),
        seen_in: Mapping[str, Sequence[str | None]] | None = None,
    ) -> Self:
        """What the rows of a table about this model have in common, measures aside."""
        return cls(
            loaded.name,
            loaded.task,
            loaded.n_params,
            seed,
            vocabulary_of(loaded.tokenizer),
            metadata,
            losses,
            seen_in or {},
            mode=loaded.mode,
        )

    @property
    def with_pll(self) -> bool:
        """Whether a table of words says which pseudo-log-likelihood a word has."""
        return self.mode is not None or not self.task.predicts_in_order

    def names(self, *, with_step: bool = False) -> list[str]:
        """The columns of the table, in order; with ``step`` if it is that of the probes."""
        besides = {
            SEQUENCE_TYPE: self.task.reports_greedy_rows,
            STEP: with_step,
            BASELINE_SURPRISAL: self.has_baseline,
            MODE: self.mode is not None,
        }
        return table_columns(
            losses=self.losses,
            metadata=self.metadata.names,
            units=self.metadata.unit_names,
            measures=list(self.measures),
            besides=[name for name, is_there in besides.items() if is_there],
        )
