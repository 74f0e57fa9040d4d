"""The columns of measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finetune_lm.errors import UserError
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.scoring.measuring import Tokens, finished


def measure_columns(
    kinds: Mapping[str, pa.DataType],
    measures: Sequence[Any],
    tokens: ScoredTokens,
    places: Tokens | None,
) -> dict[str, pa.Array]:
    """What was measured of tokens, by column: (n,) each.

    Args:
        kinds: The type of each column of the table. Those of other measures are missing.
        measures: The measures.
        tokens: The tokens, n of them.
        places: Where they stand, for measures with a method ``finish``.

    Raises:
        UserError: If a measure whose numbers are whole returns another one.
    """
    columns = {name: pa.nulls(len(tokens), kind) for name, kind in kinds.items()}
    found: dict[str, npt.NDArray[np.float32]] = {}
    for measure in measures:
        found |= finished(measure, tokens.scores, tokens.is_predicted, places)
    for name, values in found.items():
        kind = kinds[name]
        if pa.types.is_integer(kind) and len(
            broken := values[~np.isnan(values) & ~(values % 1 == 0)]
        ):
            raise UserError(
                f"a measure whose column {name} is among its integers must return whole "
                f"numbers but returned {broken[0]}."
            )
        columns[name] = pa.array(values, from_pandas=True).cast(kind)
    return columns
