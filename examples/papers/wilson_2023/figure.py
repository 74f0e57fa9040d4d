"""Draw what was taught against other constructions, before and after the training.

    python figure.py [GRID_FILE [PNG]]

A point is a new noun, or a noun of the new verb, in one run. On the x axis are the bits by which it
is right in the reference, on the y axis in passives; above 0 it is right. A new noun is compared
with the other one in its own slot, a noun of the new verb with itself in the other slot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import finetune_lm
from finetune_lm.analysis.item_values import Spread

OTHER = {"subject": "object", "object": "subject"}
COLOURS = {"subject": "#0072B2", "object": "#D55E00"}
RUN = ["new", "seed", "role", "noun", "order", "sentence_type"]


def odds(grid: str) -> pd.DataFrame:
    """Bits in favour of what is right: a row for each noun, run, construction and time."""
    probes = finetune_lm.load_grid(grid, "probes")
    sentence = ["new", "seed", "epoch", "example_num", "order", "sentence_type"]
    columns = list(probes.filter(like="surprisal_of_"))
    slots = probes.melt([*sentence, "region"], columns, "noun", "bits").dropna(subset=["bits"])
    slots["noun"] = slots["noun"].str.removeprefix("surprisal_of_")
    slots["bits"] = slots["bits"].astype(float)
    roles = json.loads(Path("data", "roles.json").read_text(encoding="utf-8"))
    slots["role"] = slots["noun"].map(roles)
    costs = slots.pivot(index=[*sentence, "role", "noun"], columns="region", values="bits")
    costs = costs.reset_index()
    own = costs["subject"].where(costs["role"] == "subject", costs["object"])
    other = costs["object"].where(costs["role"] == "subject", costs["subject"])
    costs["odds"] = other - own  # the noun in the other slot
    # Of the new nouns there is one for each role: the other noun in the same slot.
    rival = costs.assign(role=costs["role"].map(OTHER))[[*sentence, "role", "subject", "object"]]
    rival = costs[[*sentence, "role"]].merge(
        rival[rival["new"] == "arguments"], how="left", on=[*sentence, "role"]
    )
    in_slot = rival["subject"].where(costs["role"] == "subject", rival["object"])
    costs["odds"] = (in_slot - own).where(costs["new"] == "arguments", costs["odds"])
    costs["when"] = costs["epoch"].map(lambda epoch: "before" if epoch < 0 else "after")
    return costs.groupby([*RUN, "when"])["odds"].mean().unstack().reset_index()


def table(found: pd.DataFrame) -> pd.DataFrame:
    """Share of nouns that are right, and what was learned: mean over runs, 95 % interval."""
    rows = []
    for place, part in found.groupby(["new", "order", "sentence_type"]):
        learned = (part["after"] - part["before"]).groupby(part["seed"]).mean()
        spread = Spread.of(learned.to_numpy(float))
        right = [(part[when] > 0).mean() for when in ("before", "after")]
        rows.append((*place, *right, spread.mean, *spread.interval(), spread.n))
    names = ["new", "order", "sentence_type", "right_before", "right_after", "learned"]
    return pd.DataFrame(rows, columns=[*names, "low", "high", "runs"])


def draw(found: pd.DataFrame, png: str) -> None:
    """Draw a panel for the new arguments and one for the new verb."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    point = ["seed", "role", "noun"]
    for axis, (name, part) in zip(axes, found.groupby("new"), strict=True):
        reference = part[part["sentence_type"] == "reference"].set_index(point)
        passive = part[part["sentence_type"] == "passive"].set_index(point)
        for role, colour in COLOURS.items():
            x, y = (t.xs(role, level="role") for t in (reference, passive))
            y = y.reindex(x.index)
            style = {"s": 14, "alpha": 0.6}
            axis.scatter(
                x["before"], y["before"], facecolors="none", edgecolors=colour,
                label=f"{role}, before", **style,
            )  # fmt: skip
            axis.scatter(x["after"], y["after"], color=colour, label=f"{role}, after", **style)
        axis.axhline(0, color="0.5", linewidth=0.6)
        axis.axvline(0, color="0.5", linewidth=0.6)
        axis.set_title(f"new {name}", fontsize=10)
        axis.set_xlabel("taught: active (bits)")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("passive (bits)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(png, dpi=90)
    plt.close(figure)


def main(grid: str = "grid.yaml", png: str = "figure.png") -> None:
    """Print the numbers and draw them."""
    found = odds(grid)
    print(table(found).round(2).to_string(index=False))
    draw(found, png)


if __name__ == "__main__":
    main(*sys.argv[1:])
