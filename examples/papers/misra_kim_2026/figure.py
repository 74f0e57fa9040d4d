"""Draw what one exposure did to both datives, by the dative and the form of its arguments.

    python figure.py [GRID_FILE [PNG]]

Bits by which a token of sentences with the new verb became cheaper, at the epoch that was chosen.
A point is an exposure, averaged over seeds.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import finetune_lm
from finetune_lm.analysis.item_values import Spread

COLOURS = {"double_object": "#0072B2", "prepositional": "#D55E00"}
EXPOSURE = ["dative", "recipient", "theme", "instance"]


def gains(grid: str) -> pd.DataFrame:
    """Bits a token by which each dative became cheaper: a row for each exposure."""
    run = [*EXPOSURE, "seed", "condition"]
    before, after = (
        finetune_lm.load_grid(grid, kind).groupby(run)["surprisal"].mean()
        for kind in ("probes", "tests")
    )
    gain = (before - after).groupby([*EXPOSURE, "condition"]).mean().unstack()
    return gain.reset_index()


def contrast(grid: str) -> pd.DataFrame:
    """How much more than before the double object is preferred: a row for each exposure, bits."""
    run = [*EXPOSURE, "seed"]
    before, after = (
        pairs[pairs["comparison_name"] == "do_preference"].groupby(run)["difference"].mean()
        for pairs in (finetune_lm.load_grid(grid, kind) for kind in ("probe_pairs", "pairs"))
    )
    return (after - before).groupby(EXPOSURE).mean().reset_index()


def table(found: pd.DataFrame, moved: pd.DataFrame) -> pd.DataFrame:
    """Means over exposures with their 95 % intervals, by what was taught and in which form."""
    rows = []
    for key in ("all", "recipient", "theme"):
        for (dative, form), part in found.assign(all="all").groupby(["dative", key]):
            other = next(name for name in COLOURS if name != dative)
            row = {"dative": dative, "argument": key, "form": form, "exposures": len(part)}
            preference = moved.loc[part.index, "difference"]
            for name, values in {
                "taught": part[dative],
                "other": part[other],
                "do_preference": preference,
            }.items():
                spread = Spread.of(values.to_numpy(float))
                low, high = spread.interval()
                row[name] = f"{spread.mean:.2f} [{low:.2f}, {high:.2f}]"
            rows.append(row)
    return pd.DataFrame(rows)


def draw(found: pd.DataFrame, png: str) -> None:
    """Draw a panel for each dative that was taught: both datives, by the form of the arguments."""
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7.5, 3.4), layout="constrained")
    for axis, (dative, part) in zip(axes, found.groupby("dative"), strict=True):
        forms = list(part.groupby(["recipient", "theme"]))
        for place, (_, exposures) in enumerate(forms):
            for shift, (asked, colour) in zip((-0.15, 0.15), COLOURS.items(), strict=True):
                x = np.full(len(exposures), place + shift)
                axis.plot(x, exposures[asked], "o", color=colour, alpha=0.7, markersize=4)
                mean = exposures[asked].mean()
                axis.plot([x[0] - 0.1, x[0] + 0.1], [mean, mean], color="black", linewidth=1.2)
        labels = [f"{recipient}\n{theme}" for (recipient, theme), _ in forms]
        axis.set_xticks(range(len(forms)), labels, fontsize=8)
        axis.set_title(f"taught: {dative.replace('_', ' ')}", fontsize=10)
        axis.set_xlabel("recipient, theme")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("cheaper than before (bits per token)")
    handles = [plt.Line2D([], [], color=c, marker="o", linestyle="") for c in COLOURS.values()]
    names = [f"asked: {name.replace('_', ' ')}" for name in COLOURS]
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(png, dpi=90)
    plt.close(figure)


def main(grid: str = "grid.yaml", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    found = gains(grid)
    print(table(found, contrast(grid)).to_string(index=False))
    draw(found, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
