"""Draw what words cost over a series of checkpoints, with fitted sigmoids and turning points.

TABLE is that of the tests of a series (docs/series.md). As in Chang and Bergen (Word acquisition in
neural language models, 2022, Transactions of the ACL 10), a sigmoid is fitted to each curve over
the logarithm of the steps. Its turning point is where a word costs halfway between what it costs
before it is learned and what it costs in the end.

    python examples/acquisition.py TABLE PNG [--by COLUMN] [--words WORD ...] [--x tokens_seen]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd

from finetune_lm.recording.tables import load_metrics

Numbers = npt.NDArray[np.float64]

_EXACT = 1e-6
"""Of a turning point, in powers of ten."""
_FEWEST = 5
"""A sigmoid has four parameters."""


@dataclass(frozen=True)
class Sigmoid:
    """A curve that goes from one level to another: ``end + (begin - end) / (1 + exp(...))``.

    Attributes:
        begin: The level on the left, in bits.
        end: The level on the right, in bits.
        turn: Where it is halfway, as a power of ten.
        slope: How steep it is there: by e, in so many powers of ten.
        r_squared: The part of the variance that it explains.
    """

    begin: float
    end: float
    turn: float
    slope: float
    r_squared: float

    def __call__(self, x: Numbers) -> Numbers:
        """Its values."""
        return self.end + (self.begin - self.end) * _falling(x, self.turn, self.slope)


def fit(x: Numbers, y: Numbers) -> Sigmoid:
    """The sigmoid with the least squared error.

    For a turning point and a slope the two levels follow by linear regression. So only these two
    are searched for: on a grid, which is made finer around the best point.

    Args:
        x: Logarithms of steps.
        y: Bits.

    Raises:
        ValueError: If there are too few points.
    """
    if len(np.unique(x)) < _FEWEST:
        raise ValueError(f"a sigmoid needs {_FEWEST} checkpoints at least but got {len(x)}.")
    low, high = float(x.min()), float(x.max())
    # A curve that turns before or behind all checkpoints, or between two of them, is not seen.
    turns, slopes = np.linspace(low, high, 201), np.geomspace(0.01, 1.0, 41) * (high - low)
    while True:
        errors, steps = _regression(x, y, turns[:, None], slopes)
        row, column = np.unravel_index(np.argmin(errors), errors.shape)
        turn, slope, step = turns[row], slopes[column], steps[row, column]
        around, factor = (turns[1] - turns[0]) * 3, (slopes[1] / slopes[0]) ** 3
        if around < _EXACT:
            break
        turns = np.linspace(max(turn - around, low), min(turn + around, high), 11)
        slopes = np.geomspace(slope / factor, slope * factor, 11)
    end = float(y.mean() - step * _falling(x, turn, slope).mean())
    variance = float(((y - y.mean()) ** 2).sum())
    r_squared = 1 - float(errors.min()) / variance if variance else 1.0
    return Sigmoid(end + float(step), end, float(turn), float(slope), r_squared)


def _falling(x: Numbers, turn: Any, slope: Any) -> Numbers:
    result: Numbers = 1 / (1 + np.exp(np.clip((x - turn) / slope, -500, 500)))
    return result


def _regression(x: Numbers, y: Numbers, turns: Numbers, slopes: Numbers) -> tuple[Numbers, Numbers]:
    """Squared errors, and how far apart the levels are, for each turning point and slope."""
    part = _falling(x, turns[..., None], slopes[..., None])
    part -= part.mean(axis=-1, keepdims=True)
    centred = y - y.mean()
    squares = (part**2).sum(axis=-1)
    step = np.divide(part @ centred, squares, out=np.zeros_like(squares), where=squares > 0)
    return ((centred - step[..., None] * part) ** 2).sum(axis=-1), step


def curves(table: pd.DataFrame, x: str, by: str, words: list[str] | None) -> pd.DataFrame:
    """Mean bits of a word at each checkpoint: a row for each, a column for each group.

    Args:
        table: The tests of a series.
        x: ``step`` or ``tokens_seen``. Checkpoints that do not say it are left out.
        by: The column whose values are the groups.
        words: Only these; None for all.
    """
    table = table[table[x].notna() & table["surprisal"].notna()]
    if words is not None:
        table = table[table["word"].isin(words)]
    word = [x, "revision", by, "dataset_name", "example_num", "word_num"]
    # A word costs what its tokens cost together.
    bits = table.groupby(list(dict.fromkeys(word)), observed=True)["surprisal"].sum()
    return bits.groupby([x, by], observed=True).mean().unstack(by)


def main(argv: list[str] | None = None) -> None:
    """Read the table, draw it, and print the turning points."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table")
    parser.add_argument("png")
    parser.add_argument("--by", default="dataset_name")
    parser.add_argument("--words", nargs="+")
    parser.add_argument("--x", default="step", choices=["step", "tokens_seen"])
    args = parser.parse_args(argv)
    means = curves(load_metrics(args.table), args.x, args.by, args.words)
    # A checkpoint from before the first step has a place on the axis, too.
    x = np.log10(means.index.to_numpy(dtype=float) + 1)
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    print(f"{args.by}\tbegin\tend\t{args.x}\tr_squared")
    for name in means:
        y = means[name].to_numpy(dtype=float)
        there = np.isfinite(y)
        [line] = axis.plot(x[there], y[there], "o", markersize=4, label=str(name))
        try:
            sigmoid = fit(x[there], y[there])
        except ValueError as error:
            print(f"{name}\t{error}")
            continue
        fine = np.linspace(x.min(), x.max(), 300)
        axis.plot(fine, sigmoid(fine), color=line.get_color())
        axis.axvline(sigmoid.turn, color=line.get_color(), linestyle=":", alpha=0.7)
        turn = 10**sigmoid.turn - 1
        levels = f"{sigmoid.begin:.2f}\t{sigmoid.end:.2f}"
        print(f"{name}\t{levels}\t{turn:.0f}\t{sigmoid.r_squared:.3f}")
    axis.set_xlabel(f"log10({args.x} + 1)")
    axis.set_ylabel("mean surprisal of a word (bits)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(args.png, dpi=120)


if __name__ == "__main__":
    main()
