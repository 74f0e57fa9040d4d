"""Several batches of a data set as one, of which what few ask for is made when they do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from finetune_lm.data.batch import Batch


class JoinedBatches:
    """Batches one after another.

    Args:
        batches: They.

    Attributes:
        example: The row of the data set that each of their examples comes from: (n,).
        aligned: Whether its labels still are the tokens of their text: (n,).
        input_texts: What the model is fed, as text.
        input_labels: What it is to predict, as text.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self.example = np.concatenate([batch.example for batch in batches])
        self.aligned = np.concatenate([batch.aligned for batch in batches])
        self.input_texts = [text for batch in batches for text in batch.input_texts]
        self.input_labels = [text for batch in batches for text in batch.input_labels]

    def __len__(self) -> int:
        return len(self.example)

    @cached_property
    def whole(self) -> Batch:
        """They as one batch, with its tensors."""
        return Batch.joined(self._batches)
