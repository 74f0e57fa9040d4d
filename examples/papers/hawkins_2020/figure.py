"""Draw learning against forgetting by the weight of the KL term, with 95 % intervals over seeds.

python figure.py [GRID_FILE [PNG]]
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import pandas as pd

import finetune_lm
from finetune_lm.analysis.item_values import Spread

COLOURS = {
    "taught_construction": "#0072B2",
    "other_constructions": "#009E73",
    "known_verbs": "#D55E00",
}


def changes(grid: str) -> pd.DataFrame:
    """Bits per token that were added: a row for each kind of sentence, weight and seed."""
    run = ["dataset_name", "weight", "seed"]
    before = finetune_lm.load_grid(grid, "probes").groupby(run)["surprisal"].mean()
    after = finetune_lm.load_grid(grid, "tests").groupby(run)["surprisal"].mean()
    return (after - before).rename("change").reset_index()


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and its 95 % interval."""
    rows = []
    for (name, weight), part in found.groupby(["dataset_name", "weight"]):
        spread = Spread.of(part["change"].to_numpy(float))
        low, high = spread.interval()
        rows.append((name, weight, spread.mean, low, high, spread.n))
    return pd.DataFrame(rows, columns=["sentences", "weight", "change", "low", "high", "seeds"])


def draw(rows: pd.DataFrame, png: str) -> None:
    """Draw a line for each kind of sentence, with a band."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    weights = sorted(rows["weight"].unique())
    for name, colour in COLOURS.items():
        part = rows[rows["sentences"] == name].sort_values("weight")
        label = name.replace("_", " ")
        axis.plot(range(len(part)), part["change"], color=colour, marker="o", label=label)
        axis.fill_between(
            range(len(part)), part["low"], part["high"], color=colour, alpha=0.25, linewidth=0
        )
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    axis.set_xlabel("weight of the KL term (scaleby)")
    axis.set_ylabel("change of surprisal (bits per token)")
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(png, dpi=100)
    plt.close(figure)


def main(grid: str = "grid.yaml", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    rows = table(changes(grid))
    print(rows.round(2).to_string(index=False))
    draw(rows, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
