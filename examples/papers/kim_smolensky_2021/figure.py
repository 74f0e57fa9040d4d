"""Draw how often the word that belongs into a slot is likelier there than the other new word.

    python figure.py [GRID_FILE [PNG]]

Before the training, and with the model of the best epoch: a point for each run, bars for the means
over runs and their 95 % intervals.
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import finetune_lm
from finetune_lm.analysis.item_values import Spread

COLOURS = {"before": "0.6", "after": "#0072B2"}
RUN = ["pair", "exposure", "seed"]


def accuracies(grid: str) -> pd.DataFrame:
    """The share of slots that are right: a row for each run and category, before and after."""
    found = []
    for when, table in {"before": "probes", "after": "tests"}.items():
        slots = finetune_lm.load_grid(grid, table)
        slots = slots[slots["expected"]]  # each sentence once, with the word that belongs there
        both = slots.filter(like="surprisal_of_").astype(float)
        # What the other word would cost is what both cost less what this one does.
        bits = both.sum(axis=1) - 2 * slots["surprisal"]
        slots = slots.assign(right=(bits > 0) + 0.5 * (bits == 0), when=when)
        found.append(slots.groupby(["when", *RUN, "category"])["right"].mean().reset_index())
    return pd.concat(found)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over runs and its 95 % interval, by pair and category."""
    rows = []
    for place, part in found.groupby(["pair", "category", "when"]):
        spread = Spread.of(part["right"].to_numpy(float))
        low, high = spread.interval()
        rows.append((*place, spread.mean, max(low, 0), min(high, 1), spread.n))
    names = ["pair", "category", "when", "right", "low", "high", "runs"]
    return pd.DataFrame(rows, columns=names)


def draw(found: pd.DataFrame, rows: pd.DataFrame, png: str) -> None:
    """Draw a panel for each pair of categories."""
    pairs = list(dict.fromkeys(found["pair"]))
    figure, axes = plt.subplots(
        1, len(pairs), sharey=True, squeeze=False, figsize=(1.7 * len(pairs), 2.8),
        layout="constrained",
    )  # fmt: skip
    jitter = np.random.default_rng(1)
    for axis, pair in zip(axes[0], pairs, strict=True):
        categories = list(dict.fromkeys(found.loc[found["pair"] == pair, "category"]))
        for shift, when in ((-0.18, "before"), (0.18, "after")):
            for place, category in enumerate(categories):
                is_it = lambda t, c=category: (  # noqa: E731
                    (t["pair"] == pair) & (t["category"] == c) & (t["when"] == when)  # noqa: B023
                )
                points, [row] = found[is_it(found)], rows[is_it(rows)].to_dict("records")
                x = place + shift
                axis.plot(
                    x + jitter.uniform(-0.1, 0.1, len(points)), points["right"], ".",
                    color=COLOURS[when], alpha=0.5, markersize=5,
                )  # fmt: skip
                axis.plot([x - 0.14, x + 0.14], [row["right"]] * 2, color="black", linewidth=1.2)
                axis.plot([x, x], [row["low"], row["high"]], color="black", linewidth=0.8)
        axis.axhline(0.5, color="0.5", linewidth=0.6, linestyle=":")
        axis.set_xticks(range(len(categories)), categories, fontsize=8)
        axis.set_title(pair.replace("_", " / "), fontsize=8)
        axis.set_ylim(-0.03, 1.03)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("right word is likelier")
    handles = [plt.Line2D([], [], color=c, marker="o", linestyle="") for c in COLOURS.values()]
    figure.legend(handles, list(COLOURS), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(png, dpi=90)
    plt.close(figure)


def main(grid: str = "grid.yaml", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    found = accuracies(grid)
    rows = table(found)
    print(rows.round(2).to_string(index=False))
    draw(found, rows, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
