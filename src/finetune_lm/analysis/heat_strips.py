"""What each token of each sentence cost, from pass to pass, for a page that shows them.

A run of 18,000 sentences and 100 epochs has 20 million numbers, more than a page can hold. They are
kept to a tenth of a bit, and of many passes evenly spaced ones; only where ten passes of all
sentences are still too many, a random sample of the sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_lm.analysis.item_values import MISSING, Conditions
from finetune_lm.analysis.token_passes import Ints, TokenPass

Bytes = npt.NDArray[np.uint8]

STEP_IN_BITS = 0.1
"""How finely costs are kept."""

MISSING_COST = 255
LARGEST_COST = 254
MOST_PASSES = 60
FEWEST_PASSES = 10


@dataclass
class DatasetStrips:
    """The tokens of a data set, in the order of its sentences, and what they cost at some passes.

    Attributes:
        dataset: Type and name of the data.
        example: The sentence of each token: (n,).
        tokens: The tokens: (n,).
        words: The number of the word of each, -1 for none: (n,).
        condition: The number of the condition of each token: (n,).
        texts: The sentences by number.
        at: After how many epochs each pass was made, with whether it is the best epoch's.
        costs: What the tokens cost at each pass, in `STEP_IN_BITS`: (n,) each.
        n_left_out: How many sentences are not here.
    """

    dataset: tuple[str, str]
    example: Ints
    tokens: list[str]
    words: Ints
    condition: Ints
    texts: dict[int, str]
    token_ids: Ints
    at: list[tuple[float, bool]] = field(default_factory=list)
    costs: list[Bytes] = field(default_factory=list)
    n_passes: int = 0
    n_left_out: int = 0
    stride: int = 1
    numbers: list[int] = field(default_factory=list)

    def thin_out(self) -> None:
        """Leave out every other pass, but never the first one or that of the best epoch."""
        self.stride *= 2
        kept = [
            place
            for place, number in enumerate(self.numbers)
            if number % self.stride == 0 or self.at[place][1]
        ]
        self._keep(kept)

    def _keep(self, places: list[int]) -> None:
        self.at = [self.at[place] for place in places]
        self.costs = [self.costs[place] for place in places]
        self.numbers = [self.numbers[place] for place in places]

    def sample(self, share: float) -> None:
        """Leave out sentences at random, the same ones each time."""
        examples = np.unique(self.example)
        n = max(int(len(examples) * share), 1)
        chosen = np.sort(np.random.default_rng(0).choice(examples, n, replace=False))
        kept = np.isin(self.example, chosen)
        self.n_left_out += len(examples) - n
        self.tokens = [token for token, keeps in zip(self.tokens, kept, strict=True) if keeps]
        self.example, self.words, self.condition, self.token_ids = (
            each[kept] for each in (self.example, self.words, self.condition, self.token_ids)
        )
        self.costs = [each[kept] for each in self.costs]


class Strips:
    """Those of one run.

    Args:
        most: How many numbers may be kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._datasets: dict[tuple[str, str], DatasetStrips | None] = {}
        self._latest: dict[tuple[str, str], tuple[tuple[float, bool], Bytes]] = {}

    def add(self, tokens: TokenPass, conditions: Conditions, at: tuple[float, bool]) -> None:
        """Take in a pass.

        Data whose tokens are not the same in all passes, as with masks drawn for each batch, are
        left out.

        Args:
            tokens: The pass.
            conditions: The condition of each sentence.
            at: After how many epochs of training it was, and whether its model was the best one.
        """
        dataset = tokens.key.dataset
        order = np.argsort(tokens.example, kind="stable")
        if dataset not in self._datasets:
            self._datasets[dataset] = _begun(tokens, conditions, order)
        strips = self._datasets[dataset]
        if strips is None:
            return
        ids = _token_ids(tokens)[order]
        if not np.array_equal(ids, strips.token_ids):
            self._datasets[dataset] = None
            return
        bits = tokens.bits[order]
        finite = np.nan_to_num(bits, nan=0.0, posinf=1e9) / STEP_IN_BITS
        costs: Bytes = np.minimum(np.round(finite), LARGEST_COST).astype(np.uint8)
        costs[np.isnan(bits)] = MISSING_COST
        if strips.n_passes % strips.stride == 0 or at[1]:
            strips.at.append(at)
            strips.costs.append(costs)
            strips.numbers.append(strips.n_passes)
        strips.n_passes += 1
        self._latest[dataset] = (at, costs)
        n = len(strips.costs)
        if n > MOST_PASSES or (n > FEWEST_PASSES and n * len(ids) > self._most):
            strips.thin_out()

    def finish(self) -> list[DatasetStrips]:
        """What is kept, when all passes were taken in."""
        found = [each for each in self._datasets.values() if each is not None]
        for strips in found:
            at, costs = self._latest[strips.dataset]
            if strips.at[-1] != at:
                strips.at.append(at)
                strips.costs.append(costs)
                strips.numbers.append(strips.n_passes - 1)
        while self._n(found) > self._most:
            largest = max(found, key=lambda each: len(each.costs))
            if len(largest.costs) <= FEWEST_PASSES:
                break
            n_before = len(largest.costs)
            largest.thin_out()
            if len(largest.costs) == n_before:
                break
        n = self._n(found)
        if n > self._most:
            for strips in found:
                strips.sample(self._most / n)
        return found

    @staticmethod
    def _n(found: list[DatasetStrips]) -> int:
        return sum(len(each.costs) * len(each.tokens) for each in found)


def _begun(tokens: TokenPass, conditions: Conditions, order: Ints) -> DatasetStrips | None:
    rows = tokens.rows.take(order)
    texts = dict(
        zip(tokens.example[order].tolist(), rows["original_text"].to_pylist(), strict=True)
    )
    return DatasetStrips(
        tokens.key.dataset,
        tokens.example[order],
        [token or "" for token in rows["token"].to_pylist()],
        tokens.word[order],
        conditions.of(rows),
        {number: text or "" for number, text in texts.items()},
        _token_ids(tokens)[order],
    )


def _token_ids(tokens: TokenPass) -> Ints:
    found: Ints = tokens.column("token_id").cast("int64").fill_null(-1).to_numpy()
    return found


def as_plain(strips: DatasetStrips, conditions: Conditions) -> dict[str, Any]:
    """A data set's strips in plain types, for JSON.

    Returns:
        ``type``, ``name``, ``passes`` (epochs of training, and whether it is the best epoch),
        ``vocabulary`` (tokens), ``sentences`` (number, text, condition, tokens by number in the
        vocabulary, words), ``costs`` (bytes, pass by pass and token by token), ``left_out``.
    """
    different, codes = np.unique(np.array(strips.tokens, object).astype(str), return_inverse=True)
    examples, begins = np.unique(strips.example, return_index=True)
    ends = [*begins[1:], len(strips.example)]
    sentences = []
    for example, begin, end in zip(examples.tolist(), begins, ends, strict=True):
        of_tokens = np.unique(strips.condition[begin:end])
        # Tokens of a sentence may be of several conditions, such as regions.
        name = conditions.values[int(of_tokens[0])] if len(of_tokens) == 1 else ()
        sentences.append(
            [
                example,
                strips.texts[example],
                ", ".join(value for value in name if value != MISSING),
                codes[begin:end].tolist(),
                strips.words[begin:end].tolist(),
            ]
        )
    order = sorted(range(len(strips.at)), key=lambda place: strips.at[place])
    return {
        "type": strips.dataset[0],
        "name": strips.dataset[1],
        "passes": [strips.at[place] for place in order],
        "vocabulary": different.tolist(),
        "sentences": sentences,
        "costs": b"".join(strips.costs[place].tobytes() for place in order),
        "left_out": strips.n_left_out,
        "n_passes": strips.n_passes,
    }
