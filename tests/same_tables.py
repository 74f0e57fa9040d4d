"""The tables of two runs that are to have the same rows, whose numbers may differ a little."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

WITHIN = 1e-4


def assert_same_tables(one: Path, several: Path) -> list[str]:
    """See that all tables are the same, and return their names."""
    tables = sorted(path.name for path in one.glob("*.csv.gz"))
    assert tables == sorted(path.name for path in several.glob("*.csv.gz"))
    for name in tables:
        expected, found = pd.read_csv(one / name), pd.read_csv(several / name)
        numbers = [name for name in expected if expected[name].dtype.kind == "f"]
        # Of two that cost as good as the same either may be the likeliest, or the better in rank.
        rest = expected.columns.difference(
            [*numbers, "predicted_token", "predicted_token_id", "rank"]
        )
        pd.testing.assert_frame_equal(expected[rest], found[rest])
        assert (expected[numbers].isna() == found[numbers].isna()).all(axis=None)
        difference = (expected[numbers] - found[numbers]).abs().max()
        assert difference.max() <= WITHIN, (name, difference)
    return tables
