"""The columns of measures in their types."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finetune_lm.errors import UserError


def measure_columns(
    kinds: Mapping[str, pa.DataType], measured: Mapping[str, npt.NDArray[np.float32]], n: int
) -> dict[str, pa.Array]:
    """What was measured of tokens, by column: (n,) each.

    Args:
        kinds: The type of each column of the table.
        measured: What was measured, NaN where there is nothing: (n,) each. The other columns are
            missing.
        n: How many tokens there are.

    Raises:
        UserError: If a measure whose numbers are whole returned another one.
    """
    columns = {name: pa.nulls(n, kind) for name, kind in kinds.items()}
    for name, values in measured.items():
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
