"""How the numbers of one run go from pass to pass, read from its tables in one go.

Memory is that of the largest pass, whatever number of passes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.heat_strips import Strips
from finetune_lm.analysis.item_values import Conditions, ItemValues, Spread, by_condition
from finetune_lm.analysis.loss_means import LossMean, loss_means
from finetune_lm.analysis.run_files import RunFiles
from finetune_lm.analysis.token_passes import (
    BEFORE_TRAINING,
    PassKey,
    TokenPass,
    codes_and_values,
    loss_columns,
    token_passes,
)
from finetune_lm.recording.columns import ITEM, SEEN_IN
from finetune_lm.recording.table_text import TableText

LEARNED_FROM = ", in "
"""In the names of test data that are lines of the training or validation data too, before these."""

KL_COLUMN = "kl_from_baseline"
"""The divergence from the untouched model at each token, in bits, where it was measured."""


@dataclass
class PassStats:
    """What one pass over a data set came to.

    Attributes:
        key: Which pass.
        surprisal: Bits a word, by number of the condition.
        change: The change of these from the pass before the training, item by item.
        kl: The divergence from the untouched model, bits a token.
        n_infinite: How many tokens were left out because their cost was no number.
    """

    key: PassKey
    surprisal: dict[int, Spread]
    change: dict[int, Spread]
    kl: Spread | None = None
    n_infinite: int = 0


@dataclass
class Ends:
    """What each sentence of a data set cost at some passes.

    Attributes:
        before: Before the training; None if that was not measured.
        first: At the first pass.
        after: At the best epoch, or before it, where it was not measured itself; or at the last
            pass, where there is no best epoch.
        texts: The sentences by number.
        items: What metadata call them, by number.
    """

    first: tuple[PassKey, ItemValues]
    after: tuple[PassKey, ItemValues]
    before: tuple[PassKey, ItemValues] | None = None
    texts: dict[int, str] = field(default_factory=dict)
    items: dict[int, Any] = field(default_factory=dict)


class RunTrajectories:
    """One run.

    Args:
        files: Its directory.
        conditions: Which conditions there are, for all runs together.
        strips: Takes the tokens of sentences, if they are to be shown one by one.
        tables: Which of its tables of tokens; by default all.

    Attributes:
        passes: What each pass came to, in the order of the tables.
        ends: What the sentences of each data set cost before and after.
        losses: The losses of each pass of training and validation data.
        steps_per_epoch: How many updates an epoch has; None where that is not known yet.
    """

    def __init__(
        self,
        files: RunFiles,
        conditions: Conditions,
        strips: Strips | None = None,
        tables: Sequence[Path] | None = None,
    ) -> None:
        self.files = files
        self.passes: list[PassStats] = []
        self.ends: dict[tuple[str, str], Ends] = {}
        self.losses: list[tuple[PassKey, LossMean]] = []
        self.steps_per_epoch = _steps_per_epoch(files)
        self._conditions, self._strips = conditions, strips
        for table in files.token_tables if tables is None else tables:
            losses = loss_columns(TableText(table).columns)
            texts = [*conditions.names, ITEM, SEEN_IN]
            for tokens in token_passes(table, texts, [KL_COLUMN, *losses]):
                for part in _seen_apart(tokens):
                    self._take_in(part, losses)

    def epochs_of_training(self, key: PassKey) -> float:
        """How many epochs a model had learned when a pass was made: the axis of all figures.

        Rows of training are measured while the epoch goes on, so they stand in its middle.
        """
        if key.epoch is None or key.epoch == BEFORE_TRAINING:
            return 0.0
        if key.dataset_type == "train":
            return key.epoch + 0.5
        if key.step is not None and self.steps_per_epoch:
            return key.step / self.steps_per_epoch
        return key.epoch + 1.0

    def _take_in(self, tokens: TokenPass, losses: Sequence[str]) -> None:
        key = tokens.key
        if losses:
            self.losses += [(key, m.in_mode(key.mode)) for m in loss_means(tokens, losses)]
        values = ItemValues.of_pass(tokens, self._conditions)
        if not len(values.example):
            return
        self._keep_ends(tokens, values)
        before = self.ends[key.dataset].before
        change = values.minus(before[1]) if before is not None else None
        self.passes.append(
            PassStats(
                key,
                by_condition(values),
                by_condition(change) if change is not None else {},
                _kl(tokens),
                int(np.isinf(tokens.bits).sum()),
            )
        )
        if self._strips is not None:
            is_best = key.epoch is not None and key.epoch == self.files.best_epoch
            at = (self.epochs_of_training(tokens.key), is_best)
            self._strips.add(tokens, self._conditions, at)

    def _keep_ends(self, tokens: TokenPass, values: ItemValues) -> None:
        key, best = tokens.key, self.files.best_epoch
        here = (key, values)
        ends = self.ends.get(key.dataset)
        if ends is None:
            texts, items = _texts(tokens)
            ends = self.ends[key.dataset] = Ends(here, here, None, texts, items)
        if key.epoch == BEFORE_TRAINING or (key.epoch is None and not self.files.was_trained):
            ends.before = here
        if best is None or key.epoch is None or key.epoch <= best:
            ends.after = here


def _steps_per_epoch(files: RunFiles) -> int | None:
    """How many updates an epoch has, by the batches of the first one."""
    if files.metrics is None:
        return None
    first = next(token_passes(files.metrics), None)
    if first is None or first.key.dataset_type != "train":
        return None
    n_batches = int(first.all_rows["batch_number"].to_numpy().max()) + 1
    together = files.config.get("gradient_accumulation_steps") or 1
    return max(-(-n_batches // int(together)), 1)


def _seen_apart(tokens: TokenPass) -> list[TokenPass]:
    """A pass as it is, or, of test data, lines that were learned from as data of their own.

    What they cost says nothing about what the model has generalised.
    """
    if SEEN_IN not in tokens.all_rows.column_names:
        return [tokens]
    codes, values = codes_and_values(tokens.all_rows[SEEN_IN])
    return [
        TokenPass(
            tokens.key
            if value is None
            else tokens.key.called(f"{tokens.key.dataset_name}{LEARNED_FROM}{value}"),
            tokens.all_rows.filter(pa.array(codes == number)),
        )
        for number, value in enumerate(values)
    ]


def _texts(tokens: TokenPass) -> tuple[dict[int, str], dict[int, Any]]:
    """The text and the item of each example."""
    examples, first = np.unique(tokens.example, return_index=True)
    rows = tokens.rows.take(first)
    texts = rows["original_text"].to_pylist()
    items = rows[ITEM].to_pylist() if ITEM in rows.column_names else [None] * len(rows)
    numbers = [int(number) for number in examples]
    return (
        {number: text or "" for number, text in zip(numbers, texts, strict=True)},
        dict(zip(numbers, items, strict=True)),
    )


def _kl(tokens: TokenPass) -> Spread | None:
    if KL_COLUMN not in tokens.rows.column_names:
        return None
    values = tokens.column(KL_COLUMN).cast("float64").to_numpy()
    there = np.isfinite(values)
    if not there.any():
        return None
    examples, place = np.unique(tokens.example[there], return_inverse=True)
    sums = np.bincount(place, values[there], len(examples))
    return Spread.of(sums / np.bincount(place, minlength=len(examples)))
