"""What tokens cost before the training, kept to stand beside what they cost later."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_lm.data.batch import Batch
from finetune_lm.data.ragged_arrays import IntArray

FloatArray = npt.NDArray[np.float32]


class BaselineSurprisals:
    """The surprisals that a data set's tokens had in the pass before the training.

    An example is found again by its line and by all that the model is fed and asked, so that one
    which is masked otherwise than in that pass has none. They take one number for each token, and
    two for each example.
    """

    def __init__(self) -> None:
        self._values = array("f")
        self._places: dict[int, int] = {}

    def keep(self, batch: Batch, row: IntArray, surprisal: FloatArray) -> None:
        """Keep those of a batch of that pass.

        Args:
            batch: The batch.
            row: The batch's row of each token: (n,), in order.
            surprisal: What each costs, NaN if nothing predicts it: (n,).
        """
        begins = np.searchsorted(row, np.arange(len(batch)))
        for key, begin in zip(_keys(batch), begins.tolist(), strict=True):
            self._places[key] = len(self._values) + begin
        self._values.frombytes(np.ascontiguousarray(surprisal, np.float32).tobytes())

    def of(self, batch: Batch, row: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """What the tokens of a batch cost then.

        Args:
            batch: The batch.
            row: The batch's row of each token: (n,), in order.

        Returns:
            The surprisal of each, and whether there is one: (n,) each.
        """
        places = np.array([self._places.get(key, -1) for key in _keys(batch)], dtype=np.int64)
        begins = np.searchsorted(row, np.arange(len(batch)))
        is_there = places[row] >= 0
        where = places[row] + np.arange(len(row)) - begins[row]
        kept = np.frombuffer(self._values, dtype=np.float32)
        values = np.full(len(row), np.nan, dtype=np.float32)
        values[is_there] = kept[where[is_there]]
        return values, is_there

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types. Where nothing has a row, there is nothing."""
        if not self._values:
            return {}
        keys = np.fromiter(self._places.keys(), dtype=np.int64, count=len(self._places))
        places = np.fromiter(self._places.values(), dtype=np.int64, count=len(self._places))
        return {
            "values": self._values.tobytes(),
            "keys": keys.tobytes(),
            "places": places.tobytes(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        if not state:
            return
        self._values = array("f")
        self._values.frombytes(state["values"])
        keys, places = (np.frombuffer(state[name], dtype=np.int64) for name in ("keys", "places"))
        self._places = dict(zip(keys.tolist(), places.tolist(), strict=True))


def _keys(batch: Batch) -> list[int]:
    """A number for each example of a batch, of all that its tokens' costs depend on."""
    inputs = batch.inputs
    ids, labels = inputs["input_ids"].numpy(), inputs["labels"].numpy()
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    n_labels = batch.is_label.sum(dim=1).tolist()
    return [
        _key(example, ids[i, :n], labels[i, :n_label])
        for i, (example, n, n_label) in enumerate(
            zip(batch.example.tolist(), lengths, n_labels, strict=True)
        )
    ]


def _key(example: int, ids: IntArray, labels: IntArray) -> int:
    digest = hashlib.blake2b(f"{example} {len(ids)} ".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(ids).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)
