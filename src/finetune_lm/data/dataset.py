"""The data set: tensors, and the texts, labels and metadata they came from, always in step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finetune_lm.constants import IGNORED_LABEL, ONCE, PER_BATCH
from finetune_lm.data.batch import Batch
from finetune_lm.data.encoding import check_parallel, encode
from finetune_lm.data.examples import Examples
from finetune_lm.data.preprocessed_sequences import SequencePreprocessor, find_aligned
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.ragged_arrays import IntArray, Ragged, as_tensor, real_mask
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.units import FittedUnits, units_of
from finetune_lm.data.words import TokenPlaces
from finetune_lm.data_preprocessing import identity
from finetune_lm.messages import in_its_mode, warn
from finetune_lm.models.tasks import Task
from finetune_lm.models.vocabulary import padding_id

if TYPE_CHECKING:
    import datasets
    from torch import Tensor


@dataclass(frozen=True)
class DatasetOptions:
    """How a data set is made and padded.

    Attributes:
        num_workers: How many processes tokenize; None for this one.
        overwrite_cache: Whether to tokenize anew what an earlier run has left in the cache.
        pad_to_length: Make every batch this wide; None for as wide as its longest example.
        ignore_padding: Whether padding is left out of the loss.
        model: The model, for preprocessing functions that ask for it.
        mode: The mode in which it is fed them, if it has two, for messages.
    """

    num_workers: int | None = None
    overwrite_cache: bool = False
    pad_to_length: int | None = None
    ignore_padding: bool = True
    model: Any = None
    mode: str | None = None


class Dataset:
    """Examples as a model sees them, beside what they were made from.

    ``dataset.dataset`` is a Hugging Face ``datasets.Dataset`` with ``input_ids``,
    ``attention_mask`` and (unless preprocessing makes them for each batch) ``labels``.
    ``dataset.texts``, ``dataset.labels`` and ``dataset.metadata`` are parallel lists. Indexing with
    an integer, a slice or a list gives those rows of all four in one dictionary.

    Args:
        examples: The lines of a data file.
        encoder: Turns texts into token ids.
        task: The kind of model that they are for.
        preprocessing: What is done to the inputs before the model sees them.
        options: How it is made and padded.

    Raises:
        UserError: If a masked LM's labels have another number of tokens than its text, or the
            preprocessing function goes wrong.

    Example:
        >>> data = Dataset(read_examples("data.txt.gz"), encoder, task)  # doctest: +SKIP
        >>> data[0]["texts"]  # doctest: +SKIP
        'The man has always broken the glass.'
    """

    def __init__(
        self,
        examples: Examples,
        encoder: TextEncoder,
        task: Task,
        preprocessing: Preprocessing | None = None,
        options: DatasetOptions | None = None,
    ) -> None:
        options = options or DatasetOptions()
        self.name = examples.name
        self.path = examples.path
        self.has_pairs = examples.has_pairs
        """Whether some of its texts are compared with others."""
        self.predictions = examples.predictions
        """The formulas of a test suite."""
        self.tokenizer = encoder.tokenizer
        self._padding_id = padding_id(encoder.tokenizer)
        self.task = task
        self.start_tokens = encoder.start_tokens
        """What stands before every text, by name."""
        self._start_ids = encoder.start_ids
        self.preprocessing = preprocessing or Preprocessing()
        self._preprocessor = SequencePreprocessor(
            self.preprocessing, encoder, task, self.path, options.model
        )
        self.pad_to_length = options.pad_to_length
        self.ignore_padding = options.ignore_padding
        self.texts = list(examples.texts)
        given_labels = examples.labels if task.labels_from_file else None
        self.labels = list(examples.texts if given_labels is None else given_labels)
        self.metadata = list(examples.metadata)
        self.example_nums: IntArray = np.arange(len(examples), dtype=np.int64)
        """The line of the data file that each example comes from, from 0."""

        encoded = encode(
            examples, given_labels, encoder, options.num_workers, options.overwrite_cache
        )
        if given_labels is not None and task.labels_parallel_inputs:
            check_parallel(examples, encoded, options.mode)
        self._has_labels = given_labels is not None
        self.input_ids = Ragged.of_column(encoded["input_ids"])
        """The tokens of each input."""
        self.label_ids = Ragged.of_column(encoded["labels"]) if self._has_labels else None
        """Those of its labels; None where preprocessing makes them for each batch."""
        self.reference_ids = self.input_ids if self.label_ids is None else self.label_ids
        """Those of its labels' text, whatever preprocessing makes of them."""
        self.places = TokenPlaces(
            Ragged.of_column(encoded["char_start"]),
            Ragged.of_column(encoded["char_end"]),
            encoded["cut_start"].to_numpy(),
        )
        """Where the label tokens of each example are in the text of its labels."""
        self.units = units_of(examples.metadata, examples.metadata_path or self.path, self.labels)
        """The words and regions that are given for the text of each example's labels."""
        self._warn_of_cuts(encoded)
        self._warn_of_visible_labels(options.mode)
        self.aligned = np.ones(len(self), dtype=bool)
        """Whether an example's labels are still tokens of its labels' text, each at its place."""
        if self.preprocessing.strategy == ONCE:
            self._preprocess_once()
        self._input_texts = self._preprocessor.decoded(self.input_ids.tolist())

    @cached_property
    def dataset(self) -> datasets.Dataset:
        """The tensors as Hugging Face has them."""
        # Made for those who ask: to import this takes as long as to load a small model.
        import datasets

        table = {
            "input_ids": self.input_ids.column(pa.int32()),
            "attention_mask": self.input_ids.ones().column(pa.int8()),
        }
        if self.label_ids is not None:
            table["labels"] = self.label_ids.column(pa.int64())
        return datasets.Dataset(pa.table(table))

    @property
    def columns(self) -> list[str]:
        """The columns of ``dataset.dataset``."""
        labels = [] if self.label_ids is None else ["labels"]
        return ["input_ids", "attention_mask", *labels]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def longest(self) -> int:
        """The length of the longest input, in tokens."""
        return self.pad_to_length or int(self.input_ids.lengths.max(initial=0))

    @property
    def shortest(self) -> IntArray:
        """The tokens of the shortest input."""
        return self.input_ids[int(self.input_ids.lengths.argmin())]

    @property
    def lengths(self) -> IntArray:
        """How many tokens each example has, in its inputs and, where these are others, its labels.

        Only where preprocessing is not done for each batch anew.
        """
        assert self.label_ids is not None
        lengths: IntArray = self.input_ids.lengths + self.label_ids.lengths
        return lengths

    @property
    def draws(self) -> bool:
        """Whether random numbers may be drawn when batches are made."""
        is_per_batch = self.preprocessing.strategy == PER_BATCH
        return is_per_batch and self.preprocessing.function is not identity

    @property
    def hides_nothing(self) -> bool:
        """Whether no input is a mask and each label that counts is the input at its place.

        Of a function that preprocesses each batch it is not known, and so it is False.
        """
        if self.draws:
            return False
        inputs = self.input_ids.values
        labels = inputs if self.label_ids is None else self.label_ids.values
        if len(inputs) != len(labels) or (inputs == self.tokenizer.mask_token_id).any():
            return False
        counts = labels != IGNORED_LABEL
        return bool(counts.any() and (inputs[counts] == labels[counts]).all())

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self)} examples for a {self.task.description}, "
            f"columns {self.columns}, {self.preprocessing.name} {self.preprocessing.strategy})"
        )

    def __getitem__(self, index: int | slice | Sequence[int]) -> dict[str, Any]:
        """Rows of the tensors, texts, labels and metadata.

        Args:
            index: Which. For an integer the values are those of one example, else lists of them.

        Returns:
            A dictionary with the keys ``dataset`` (a dictionary by column), ``texts``, ``labels``
            and ``metadata``.
        """
        parallel: dict[str, list[Any]] = {
            "texts": self.texts,
            "labels": self.labels,
            "metadata": self.metadata,
        }
        if isinstance(index, (int, np.integer)):
            row = range(len(self))[int(index)]
            return {"dataset": self.dataset[row], **{k: v[row] for k, v in parallel.items()}}
        if isinstance(index, slice):
            rows = list(range(len(self)))[index]
        else:
            rows = [range(len(self))[int(i)] for i in index]
        return {
            "dataset": self.dataset[rows],
            **{key: [values[row] for row in rows] for key, values in parallel.items()},
        }

    def batches(
        self, batch_size: int, order: IntArray | None = None, *, bounded: bool = False
    ) -> Iterator[Batch]:
        """The examples in batches.

        Args:
            batch_size: How many examples a batch takes, before preprocessing per batch, which may
                make more or fewer of them.
            order: The order in which to take the examples; by default that of the file.
            bounded: Whether no batch is to be larger than that after preprocessing either, so that
                one that grows becomes several.
        """
        order = np.arange(len(self)) if order is None else order
        for begin in range(0, len(order), batch_size):
            example = order[begin : begin + batch_size]
            yield from self._batches_of(example, batch_size if bounded else None)

    def n_batches(self, batch_size: int) -> int:
        """How many batches there are, one that becomes several counted once."""
        return -(-len(self) // batch_size)

    def _batches_of(self, example: IntArray, at_most: int | None) -> Iterator[Batch]:
        """Some examples as a batch, or as several of ``at_most`` rows each."""
        if self.preprocessing.strategy == PER_BATCH:
            input_ids, labels, repeats = self._preprocessor(self.input_ids, self.label_ids, example)
            example = np.repeat(example, repeats)
            aligned = find_aligned(labels, self.reference_ids, example)
            before = [self.labels[i] for i in example]
            texts = self._preprocessor.label_texts(labels, before, aligned)
            rows = np.arange(len(example))
        else:
            assert self.label_ids is not None
            input_ids, labels, rows = self.input_ids, self.label_ids, example
            aligned = self.aligned[example]
            texts = [self.labels[i] for i in example]
        # Preprocessing may have dropped all of them.
        size = at_most or max(len(rows), 1)
        for begin in range(0, len(rows), size):
            part = slice(begin, begin + size)
            yield self._batch(
                (input_ids, labels, rows[part]),
                example[part],
                aligned[part],
                texts[part],
                is_last_part=part.stop >= len(rows),
            )

    def _batch(
        self,
        sequences: tuple[Ragged, Ragged, IntArray],
        example: IntArray,
        aligned: npt.NDArray[np.bool_],
        input_labels: list[str],
        is_last_part: bool,
    ) -> Batch:
        """One batch, of some rows of inputs and labels."""
        input_ids, labels, rows = sequences
        input_texts = (
            self._preprocessor.decoded(input_ids.select(rows).tolist())
            if self.preprocessing.strategy == PER_BATCH
            else [self._input_texts[i] for i in rows]
        )
        tensors = self._tensors(input_ids, labels, rows)
        is_label = real_mask(labels.lengths[rows], tensors["labels"].shape[1])
        first = tensors["labels"][:, : len(self._start_ids)]
        start = first.new_tensor(self._start_ids[: first.shape[1]])
        n_start = (first == start).long().cumprod(dim=1).sum(dim=1)
        return Batch(
            tensors, example, is_label, n_start, aligned, input_texts, input_labels, is_last_part
        )

    def _tensors(self, input_ids: Ragged, labels: Ragged, rows: IntArray) -> dict[str, Tensor]:
        """What the model is called with, padded on the right."""
        length = self.pad_to_length
        ids = input_ids.padded(rows, self._padding_id, length)
        padding = IGNORED_LABEL if self.ignore_padding else self._padding_id
        if self.task.labels_parallel_inputs:
            width = ids.shape[1]
        else:
            # A model cannot be called with labels of no width, so where there are none one is
            # ignored.
            width = max(int(labels.lengths[rows].max(initial=0)), length or 1)
        label_ids = labels.padded(rows, padding, width)
        return {
            "input_ids": as_tensor(ids),
            "attention_mask": real_mask(input_ids.lengths[rows], ids.shape[1]).long(),
            "labels": as_tensor(label_ids),
        }

    def _preprocess_once(self) -> None:
        """Replace the tensors by what the function makes of them, texts and all in step."""
        made = self._preprocessor.in_chunks(self.input_ids, self.label_ids)
        self.input_ids, self.label_ids, repeats = made
        example = np.repeat(np.arange(len(self)), repeats)
        self.aligned = find_aligned(self.label_ids, self.reference_ids, example)
        self.texts = [self.texts[i] for i in example]
        self.labels = self._preprocessor.label_texts(
            self.label_ids, [self.labels[i] for i in example], self.aligned
        )
        self.metadata = [self.metadata[i] for i in example]
        self.example_nums = self.example_nums[example]
        self.places = self.places.select(example, self.aligned)
        self.units = [
            self.units[i] if is_aligned else FittedUnits()
            for i, is_aligned in zip(example.tolist(), self.aligned.tolist(), strict=True)
        ]
        self.reference_ids = self.reference_ids.select(example)

    def _warn_of_visible_labels(self, mode: str | None) -> None:
        # Labels beside the inputs are answers that the model sees wherever there is no mask.
        beside_inputs = self._has_labels and self.task.labels_parallel_inputs
        if beside_inputs and self.preprocessing.function is identity:
            warn(
                f"{self.name}: every token counts in the loss{in_its_mode(mode)}, even those that "
                "the model sees. data_preprocessing.remove_non_mask_tokens_from_labels keeps only "
                "the masks."
            )

    def _warn_of_cuts(self, encoded: pa.Table) -> None:
        # Labels beside the inputs are cut where these are.
        beside_inputs = not self._has_labels or self.task.labels_parallel_inputs
        sides = ["n_cut"] if beside_inputs else ["n_cut", "label_n_cut"]
        n_cut = np.sum([encoded[side].to_numpy() for side in sides], axis=0)
        if n_cut.any():
            warn(
                f"{self.name}: {np.count_nonzero(n_cut)} of {len(self)} texts are too long "
                f"for the model or max_length, and {n_cut.sum()} of their tokens were cut off. "
                f"They have no rows in the tables."
            )
