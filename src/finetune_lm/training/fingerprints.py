"""A short number that tells whether two runs feed a model the same."""

from __future__ import annotations

import zlib

from finetune_lm.data.dataset import Dataset
from finetune_lm.data.ragged_arrays import Ragged


def data_fingerprint(dataset: Dataset) -> int:
    """A checksum over all token ids of a data set, after preprocessing if that is done once."""
    checksum = 0
    for column in ("input_ids", "labels"):
        if column in dataset.columns:
            sequences = Ragged.of(dataset.dataset[column])
            checksum = zlib.crc32(sequences.values.tobytes(), checksum)
            checksum = zlib.crc32(sequences.starts.tobytes(), checksum)
    return checksum
