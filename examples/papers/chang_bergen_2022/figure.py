"""Draw what nouns cost over the checkpoints, and when each is learned against how often it is met.

    python figure.py [TABLE [PNG]]

To each noun's curve a sigmoid is fitted over the logarithm of the steps (examples/acquisition.py).
A noun is learned at its turning point.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import finetune_lm

sys.path.append(str(Path(__file__).parents[2]))
from acquisition import fit

FEWEST_EXPLAINED = 0.8
"""A curve of which the sigmoid explains a smaller part of the variance has no turning point."""


def curves(table: str) -> pd.DataFrame:
    """Mean bits of each noun at each step: a row for each step, a column for (share, noun)."""
    tokens = finetune_lm.load_metrics(table)
    tokens = tokens[tokens["region"] == "noun"]
    nouns = tokens.groupby(["step", "share", "noun", "example_num"])["surprisal"].sum()
    return nouns.groupby(["step", "share", "noun"]).mean().unstack(["share", "noun"])


def turning_points(bits: pd.DataFrame) -> pd.DataFrame:
    """When each noun is learned, as a power of ten; NaN where the curve is no sigmoid."""
    x = np.log10(bits.index.to_numpy(float) + 1)
    rows = []
    for share, noun in bits.columns:
        sigmoid = fit(x, bits[share, noun].to_numpy(float))
        is_learned = sigmoid.r_squared >= FEWEST_EXPLAINED and sigmoid.end < sigmoid.begin
        turn = sigmoid.turn if is_learned else np.nan
        rows.append((noun, share, turn, sigmoid.begin, sigmoid.end, sigmoid.r_squared))
    names = ["noun", "share", "turn", "begin", "end", "r_squared"]
    return pd.DataFrame(rows, columns=names).sort_values("share", ascending=False)


def correlation(points: pd.DataFrame) -> tuple[float, float, float, int]:
    """Pearson's r of turning points and log frequency, Fisher's 95 % interval, and n."""
    known = points.dropna()
    if len(known) < 4:  # Fisher's interval is of four at least
        return float("nan"), float("nan"), float("nan"), len(known)
    r = float(np.corrcoef(np.log10(known["share"]), known["turn"])[0, 1])
    half = 1.96 / np.sqrt(len(known) - 3)
    low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return r, float(low), float(high), len(known)


def draw(bits: pd.DataFrame, points: pd.DataFrame, png: str) -> None:
    """Draw the curves by frequency, and the turning points."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
    x = np.log10(bits.index.to_numpy(float) + 1)
    shares = sorted(points["share"].unique(), reverse=True)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shares)))
    for share, colour in zip(shares, colours, strict=True):
        mean = bits[share].mean(axis=1).to_numpy(float)
        left.plot(x, mean, "o-", color=colour, markersize=3, label=f"{share:.2%}")
        part = points[points["share"] == share]
        right.plot(np.log10(part["share"]), part["turn"], "o", color=colour)
    left.set_xlabel("log10(step + 1)")
    left.set_ylabel("surprisal of a noun (bits)")
    left.legend(frameon=False, fontsize=7, title="of all nouns", title_fontsize=7)
    right.set_xlabel("log10 of the noun's frequency")
    right.set_ylabel("turning point: log10(step + 1)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(png, dpi=90)
    plt.close(figure)


def main(table: str = "outputs/series/series-test_results.csv.gz", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    bits = curves(table)
    points = turning_points(bits)
    print(points.round(2).to_string(index=False))
    r, low, high, n = correlation(points)
    print(f"r of turning point and log frequency: {r:.2f} [{low:.2f}, {high:.2f}], {n} nouns")
    draw(bits, points, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
