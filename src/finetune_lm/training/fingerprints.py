"""Short numbers that tell whether two runs begin with the same model and data."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data.dataset import Dataset
from finetune_lm.data.ragged import Ragged
from finetune_lm.training.best_state import weights_of

if TYPE_CHECKING:
    from torch import Tensor

_SAMPLED = 64


def model_fingerprint(model: Any) -> int:
    """A checksum over every weight's name and shape, and 64 of its values.

    That tells models apart without reading all of a large one.
    """
    checksum = 0
    for name, tensor in weights_of(model).items():
        checksum = zlib.crc32(f"{name} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(_sample(tensor), checksum)
    return checksum


def _sample(tensor: Tensor) -> bytes:
    import torch

    if not tensor.numel():
        return b""
    places = torch.from_numpy(np.linspace(0, tensor.numel() - 1, _SAMPLED).astype(np.int64))
    values = tensor.reshape(-1)[places.to(tensor.device)].cpu()
    kind = torch.complex128 if values.is_complex() else torch.float64
    sample: bytes = values.to(kind).numpy().tobytes()
    return sample


def data_fingerprint(dataset: Dataset) -> int:
    """A checksum over all token ids of a data set, after preprocessing if that is done once."""
    checksum = 0
    for column in ("input_ids", "labels"):
        if column in dataset.columns:
            sequences = Ragged.of(dataset.dataset[column])
            checksum = zlib.crc32(sequences.values.tobytes(), checksum)
            checksum = zlib.crc32(sequences.starts.tobytes(), checksum)
    return checksum
