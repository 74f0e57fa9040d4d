"""The measures of a run, made with its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from finetune_lm.arguments.given_measures import GivenMeasure
from finetune_lm.errors import UserError, users_code
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.vocabulary import n_embeddings
from finetune_lm.scoring.measuring import try_out


def make_measures(given: Sequence[GivenMeasure], loaded: LoadedModel) -> list[Any]:
    """Make measures with a model, and try out those of users.

    Raises:
        UserError: If one cannot be made, this kind of model cannot have it, or it does not return
            its columns.
    """
    made = []
    for measure in given:
        try:
            with users_code(f"measure {measure.name}"):
                each = measure.cls(model=loaded.model, tokenizer=loaded.tokenizer, **measure.kwargs)
        except UserError as error:
            raise UserError(
                *(f"measure {measure.name}: {problem}" for problem in error.problems)
            ) from error
        problem = each.task_problem(loaded.task) if hasattr(each, "task_problem") else None
        if problem is not None:
            raise UserError(f"measure {measure.name}: {problem}.")
        if not callable(each):
            raise UserError(f"measure {measure.name} must be called with logits and targets.")
        device = next(loaded.model.parameters()).device
        try_out(each, n_embeddings(loaded.model) or len(loaded.tokenizer), device)
        made.append(each)
    return made


def column_types(measures: Mapping[str, GivenMeasure]) -> dict[str, pa.DataType]:
    """The type of each column, in order."""
    return {
        name: pa.int64() if name in measure.integers() else pa.float32()
        for name, measure in measures.items()
    }
