"""What a data set's preprocessing function makes of its examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.ragged_arrays import IntArray, Ragged, as_tensor, real_mask, unpadded
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.models.tasks import Task
from finetune_lm.models.vocabulary import n_embeddings, padding_id

if TYPE_CHECKING:
    from torch import Tensor

# How many examples a preprocessing function is given at a time under the strategy `once`: enough to
# be fast, few enough that a function which makes an example of each token stays within memory.
CHUNK = 1_000
CHUNK_TOKENS = 2**24  # if every token becomes an example as long as the longest: 128 MB


class SequencePreprocessor:
    """Gives the examples of a data set to its preprocessing function, and checks what it makes.

    Args:
        preprocessing: The function.
        encoder: What made the tokens of the examples.
        task: The kind of model that they are for.
        path: The data file, for messages.
        model: The model, if the function may ask for it.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        encoder: TextEncoder,
        task: Task,
        path: str,
        model: Any = None,
    ) -> None:
        self._preprocessing = preprocessing
        self._tokenizer = encoder.tokenizer
        self._padding_id = padding_id(encoder.tokenizer)
        self._max_length = encoder.max_length
        self._task = task
        self._path = path
        self._model = model

    def __call__(
        self, input_ids: Ragged, label_ids: Ragged | None, rows: IntArray
    ) -> tuple[Ragged, Ragged, IntArray]:
        """Preprocess some examples.

        Args:
            input_ids: The inputs of all examples.
            label_ids: Their labels; None if the function makes them.
            rows: Which examples: (n,).

        Returns:
            The inputs and labels of the examples made, and how many each has become: (n,).

        Raises:
            UserError: If the function goes wrong.
        """
        lengths = input_ids.lengths[rows]
        inputs = {
            "input_ids": as_tensor(input_ids.padded(rows, self._padding_id)),
            "attention_mask": real_mask(lengths, int(lengths.max())).long(),
        }
        if label_ids is not None:
            inputs["labels"] = as_tensor(label_ids.padded(rows, IGNORED_LABEL))
        outputs, repeats = self._preprocessing(
            inputs,
            self._tokenizer,
            self._model,
            name_of=lambda i: f"{self._path}, line {rows[i] + 1}",
            needs_labels=self._task.labels_from_file,
        )
        self._check(outputs)
        return *unpadded(outputs, self._task), repeats

    def in_chunks(
        self, input_ids: Ragged, label_ids: Ragged | None
    ) -> tuple[Ragged, Ragged, IntArray]:
        """Preprocess all examples, so many at a time that it needs little memory."""
        size = min(max(CHUNK_TOKENS // int(input_ids.lengths.max()) ** 2, 1), CHUNK)
        begins = range(0, len(input_ids), size)
        made = [
            self(input_ids, label_ids, np.arange(begin, min(begin + size, len(input_ids))))
            for begin in begins
        ]
        inputs, labels, repeats = zip(*made, strict=True)
        return Ragged.joined(inputs), Ragged.joined(labels), np.concatenate(repeats)

    def label_texts(
        self, labels: Ragged, before: list[str], aligned: npt.NDArray[np.bool_]
    ) -> list[str]:
        """The text of labels that the function has made, where it is one that makes new ones.

        Args:
            labels: The labels of n examples.
            before: The texts that they had.
            aligned: Which are still tokens of these texts, each at its place, and have them: (n,).
        """
        if not self._preprocessing.updates_labels or aligned.all():
            return before
        changed = np.flatnonzero(~aligned).tolist()
        read = self.decoded([labels[i][labels[i] != IGNORED_LABEL].tolist() for i in changed])
        after = dict(zip(changed, read, strict=True))
        return [after.get(i, text) for i, text in enumerate(before)]

    def decoded(self, rows: list[list[int]]) -> list[str]:
        """The text of token ids."""
        return list(self._tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False))

    def _check(self, outputs: dict[str, Tensor]) -> None:
        if self._task.labels_parallel_inputs:
            self._preprocessing.check_parallel(outputs, self._task.description)
        self._preprocessing.check_lengths(outputs, self._max_length)
        self._preprocessing.check_mask(outputs)
        if (n_ids := n_embeddings(self._model)) is not None:
            self._preprocessing.check_ids(outputs, n_ids)


def find_aligned(labels: Ragged, reference: Ragged, rows: IntArray) -> npt.NDArray[np.bool_]:
    """Which examples' labels are the tokens of the labels' text that they were, or ignored.

    Args:
        labels: The labels of n examples.
        reference: The tokens of the labels' texts of all examples of the data set.
        rows: Which of these they were made of: (n,).
    """
    aligned: npt.NDArray[np.bool_] = labels.lengths == reference.lengths[rows]
    same = np.flatnonzero(aligned)
    found, expected = labels.select(same), reference.select(rows[same])
    differ = (found.values != IGNORED_LABEL) & (found.values != expected.values)
    aligned[np.repeat(same, found.lengths)[differ]] = False
    return aligned
