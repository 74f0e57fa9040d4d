"""Draw in how many draws of the new verb its sister frame got better, by what was taught.

    python figure.py [GRID_FILE [PNG]]

The verb got better in a frame by the bits by which it became cheaper there. The sister is better
than the controls if it got better by more than the frames of other alternations did on average.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import pandas as pd

import finetune_lm
from finetune_lm.analysis.item_values import Spread
from finetune_lm.analysis.pair_summary import wilson

COLOURS = {"sister": "#0072B2", "controls": "#D55E00"}


def gains(grid: str) -> pd.DataFrame:
    """By how many bits the verb became cheaper: a row for each run, columns of COLOURS."""
    probes = finetune_lm.load_grid(grid, "probes")
    key = ["taught", "seed", "alternation", "frame"]
    bits = probes.groupby([*key, "epoch"])["surprisal"].sum().unstack("epoch")
    gain = (bits[-1] - bits[bits.columns.max()]).rename("gain").reset_index()
    alternations = gain.drop_duplicates("frame").set_index("frame")["alternation"]
    is_kin = gain["alternation"] == gain["taught"].map(alternations)
    gain["part"] = is_kin.map({True: "sister", False: "controls"})
    others = gain[gain["frame"] != gain["taught"]]
    return others.groupby(["taught", "seed", "part"])["gain"].mean().unstack()


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Shares of seeds with Wilson's interval, and the mean advantage with that of Student's t."""
    rows = []
    for taught, part in found.groupby("taught"):
        row = {"taught": taught, "seeds": len(part)}
        advantage = part["sister"] - part["controls"]
        for name, is_so in {
            "cheaper": part["sister"] > 0,
            "better_than_controls": advantage > 0,
        }.items():
            row[name] = is_so.mean()
            row[f"{name}_low"], row[f"{name}_high"] = wilson(row[name], len(part))
        spread = Spread.of(advantage.to_numpy(float))
        row["advantage"] = spread.mean
        row["advantage_low"], row["advantage_high"] = spread.interval()
        rows.append(row)
    return pd.DataFrame(rows)


def draw(found: pd.DataFrame, rows: pd.DataFrame, png: str) -> None:
    """Draw a histogram over seeds for each taught frame."""
    n = len(rows)
    figure, axes = plt.subplots(
        n, 1, sharex=True, squeeze=False, figsize=(5.5, 1.6 * n + 0.6), layout="constrained"
    )
    for axis, row in zip(axes[:, 0], rows.to_dict("records"), strict=True):
        part = found.loc[row["taught"]]
        for name, colour in COLOURS.items():
            axis.hist(part[name], bins=30, color=colour, alpha=0.6, label=name)
        share, low, high = (row[f"better_than_controls{end}"] for end in ("", "_low", "_high"))
        axis.set_title(
            f"{row['taught']}: sister better in {share:.1%} [{low:.1%}, {high:.1%}]",
            fontsize=9, loc="left",
        )  # fmt: skip
        axis.set_ylabel("seeds")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    axes[-1, 0].set_xlabel("bits by which the verb became cheaper")
    figure.savefig(png, dpi=90)
    plt.close(figure)


def main(grid: str = "grid.yaml", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    found = gains(grid)
    rows = table(found)
    print(rows.round(3).T.to_string(header=False))
    draw(found, rows, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
