"""An epoch of training and validation with its rows written, against one without any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import workload
from finetune_lm.recording.tables import TableWriter
from finetune_lm.recording.token_rows import TokenRows
from measuring import Row, smallest

TARGET = 1.03
MILLISECONDS = 0.5
BATCH = 413
"""Rows of a batch of 32 sentences of about 13 tokens."""
N_EPOCHS = 40
_RECORDING = (TokenRows, "of_batches"), (TableWriter, "write"), (TableWriter, "end_piece")


def run(quick: bool = False) -> list[Row]:
    """An epoch with metrics written, against one without, and what the rows take of it."""
    del quick
    workload.one_thread()
    tokenizer, texts = workload.built_in_tokenizer(), workload.taught()
    epochs = [
        workload.experiment(
            workload.causal_model("tiny"), tokenizer, texts, recorded=recorded
        ).epoch
        for recorded in (True, False)
    ]
    recorded, unrecorded = smallest(*epochs)
    what = "epoch with every token recorded and written, tiny"
    of_rows = f"rows made and written while a model learns, {BATCH} of them, tiny, vocabulary 512"
    return [
        Row.at_most(what, "the same without", recorded / unrecorded, TARGET),
        Row.at_most(of_rows, "–", _milliseconds(), MILLISECONDS, " ms"),
    ]


def _milliseconds() -> float:
    """How long rows take that are made and written between steps, which leave cold caches."""
    model = workload.causal_model("tiny", workload.SMALL_VOCABULARY)
    made = workload.experiment(model, workload.small_tokenizer(), workload.taught())
    data = made.training.dataset
    n_rows = len(data.input_ids.values) - len(data)  # start tokens have none
    made.epoch()
    times = []
    for _ in range(N_EPOCHS):
        with _timed(*_RECORDING) as parts:
            made.epoch()
        times.append(sum(parts))
    # An epoch goes through the data twice.
    return min(times) / (2 * n_rows) * BATCH * 1000


@contextmanager
def _timed(*methods: tuple[type, str]) -> Iterator[list[float]]:
    """The processor time of each call of some methods meanwhile, in seconds."""
    times: list[float] = []

    def timing(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return method(*args, **kwargs)
            finally:
                times.append(time.process_time() - begun)

        return timed

    given = {at: getattr(*at) for at in methods}
    for (owner, name), method in given.items():
        setattr(owner, name, timing(method))
    try:
        yield times
    finally:
        for (owner, name), method in given.items():
            setattr(owner, name, method)
