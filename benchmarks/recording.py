"""An epoch of training and validation with its rows written, against one without any."""

from __future__ import annotations

import workload
from measuring import Row, smallest

TARGET = 1.03


def run(quick: bool = False) -> list[Row]:
    """An epoch with metrics written, against one without."""
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
    return [Row.at_most(what, "the same without", recorded / unrecorded, TARGET)]
