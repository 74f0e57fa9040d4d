"""Rows with the columns of measures, by every way in which a model is called."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import pyarrow as pa
import torch

from finetune_lm.data.dataset import Dataset
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import row_maker, rows_of

CPU = torch.device("cpu")
WAYS = ("plain", "fast", "together", "training", "plain training")
# Where another family has gone all ways already.
FEW_WAYS = ("together", "training")


def measured(
    fam: Any, data: Dataset, measures: list[Any], way: str = "plain", size: int = 2
) -> pd.DataFrame:
    """All rows of a data set.

    Args:
        fam: A family of `families.py`, or what looks like one.
        data: The data set.
        measures: The measures, which are made.
        way: One of `WAYS`.
        size: How many examples a batch has.
    """
    maker = row_maker(fam, data)
    names = [name for measure in measures for name in measure.columns]
    columns = dataclasses.replace(maker.run, measures=dict.fromkeys(names, pa.float32()))
    maker = type(maker)(data, "test", columns, measures=measures)
    fast = not way.startswith("plain")
    forward = Forward(
        Scorer(fam.model, data.task, fast=fast),
        data,
        size,
        needs=Needs(not fast, measures),
    )
    tables = []
    with torch.set_grad_enabled("training" in way):
        for number, batch in enumerate(data.batches(size)):
            outputs = forward(batch, CPU, alone=way != "together")
            tables.append(rows_of(maker, batch, outputs.score, number=number))
            if "training" in way and outputs.for_losses.loss is not None:
                outputs.for_losses.loss.backward()
    if way == "fast":
        assert forward._is_fast or not fam.model.parameters
    return pa.concat_tables(tables).select(columns.names()).to_pandas()
