"""Draw what a verb's two arguments cost in each construction while a model is taught the verb.

OUTPUT_DIR is that of a run with --probe_file whose metadata say of each line: word_subj and
word_obj (its subject and object), sentence_type (its construction), arg_order, and item. So do
data/nonce_verb/flomped_test.txt.gz and files of the same design.

    python examples/probe_curves.py OUTPUT_DIR PNG [--column surprisal] [--dataset NAME]

Lines are means over items, bands one standard error of these to either side. A word counts with
the punctuation behind it.
"""

from __future__ import annotations

import argparse
import json
import math
import string
import sys
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

import finetune_lm

ROLES = {"word_subj": "subject", "word_obj": "object"}
COLOURS = {"word_subj": "#0072B2", "word_obj": "#D55E00"}  # told apart by all readers, also in grey
METADATA = [*ROLES, "sentence_type", "arg_order"]
DASHES = ["-", (0, (3, 1.5)), (0, (1, 1))]
PUNCTUATION = string.punctuation + "“”‘’…"
LABELS = {"surprisal": "surprisal (bits)", "surprisal_corrected": "corrected surprisal (bits)"}


def main() -> None:
    """Read the probes of a run and draw them."""
    args = arguments()
    probes = finetune_lm.load_probes(args.output_dir)
    if args.dataset:
        probes = probes[probes["dataset_name"] == args.dataset]
    if missing := [key for key in METADATA if key not in probes]:
        wanted, lacking = ", ".join(METADATA), ", ".join(missing)
        sys.exit(f"the metadata of the probes must have {wanted} but lack {lacking}.")
    known = (c for c in reversed(LABELS) if c in probes and probes[c].notna().any())
    column = args.column or next(known, "surprisal")
    costs = word_costs(probes, column)
    if costs.empty:
        sys.exit("no line has a word that is its word_subj or its word_obj.")
    draw(curves(costs), LABELS.get(column, column), best_epoch(args.output_dir), args.png)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("png")
    parser.add_argument("--column", help="surprisal_corrected where it is there, else surprisal")
    parser.add_argument("--dataset", help="the probe file to draw, if there are several")
    return parser.parse_args()


def word_costs(probes: pd.DataFrame, column: str) -> pd.DataFrame:
    """What subject and object of each line cost in each pass: one row each.

    A word costs the sum of what its tokens cost; where one of them is missing, so is the word. A
    line in which the word stands twice is left out.
    """
    tokens = probes[probes["is_target"] & probes["word_num"].notna()]
    line = ["dataset_name", "example_num", "step"]
    about = ["epoch", "item", "sentence_type", "arg_order", "original_text", "seen_in", *ROLES]
    by_word = tokens.groupby([*line, "word_num", "word"], sort=False)
    words = by_word[about].first()
    words["cost"] = by_word[column].sum().where(by_word[column].count() == by_word.size())
    words = words.reset_index()
    plain = words["word"].str.strip(PUNCTUATION)
    found = [words[plain == words[role]].assign(role=role) for role in ROLES]
    costs = pd.concat(found)
    is_alone = costs.groupby([*line, "role"])["cost"].transform("size") == 1
    return costs[is_alone & costs["cost"].notna()]


def curves(costs: pd.DataFrame) -> pd.DataFrame:
    """Mean over items and its standard error, in each pass.

    An item that has several lines (of other adverbs, say) counts by their mean.
    """
    pass_ = ["sentence_type", "arg_order", "role", "step", "epoch"]
    items = costs.groupby([*pass_, "dataset_name", "item"], sort=False)["cost"].mean()
    table = items.groupby(pass_, sort=False).agg(["mean", "std", "size"]).reset_index()
    table["error"] = table["std"].fillna(0) / table["size"] ** 0.5
    table["trained"] = table["epoch"] + 1
    shown = costs.drop_duplicates("sentence_type").set_index("sentence_type")["original_text"]
    taught = costs["seen_in"].fillna("").str.contains("train").groupby(costs["sentence_type"]).any()
    return table.assign(
        example=table["sentence_type"].map(shown), is_taught=table["sentence_type"].map(taught)
    )


def best_epoch(output_dir: Path) -> int | None:
    """The epoch whose model was kept."""
    if not output_dir.is_dir():
        return None
    best: int | None = json.loads((output_dir / "run.json").read_text())["best_epoch"]
    return best


def draw(table: pd.DataFrame, label: str, best: int | None, png: str) -> None:
    """Draw a panel for each construction: a colour for each word, a dash for each order."""
    constructions = list(table["sentence_type"].unique())
    orders = list(table["arg_order"].unique())
    n_columns = min(4, len(constructions))
    n_rows = math.ceil(len(constructions) / n_columns)
    plt.rcParams |= {"font.size": 7, "axes.linewidth": 0.6}
    figure, grid = plt.subplots(
        n_rows, n_columns, sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(max(1.8 * n_columns, 4), 1.65 * n_rows + 0.5),
    )  # fmt: skip
    for axis in grid.flat[len(constructions) :]:
        axis.set_visible(False)
    for axis, construction in zip(grid.flat, constructions, strict=False):
        panel(axis, table[table["sentence_type"] == construction], orders)
        if best is not None:
            axis.axvline(best + 1, color="0.5", linewidth=0.6, linestyle=":", label="best epoch")
    # All panels share this axis, which would grow no more if it were set before the last is drawn.
    grid[0, 0].set_ylim(bottom=0)
    for axis in grid[-1]:
        axis.set_xlabel("epochs of training")
    for column, axis in enumerate(grid[-1]):  # of a column that ends one row above
        if not axis.get_visible():
            grid[-2][column].set_xlabel("epochs of training")
            grid[-2][column].tick_params(labelbottom=True)
    for axis in grid[:, 0]:
        axis.set_ylabel(label)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    # A word's two orders stand below each other.
    n = math.ceil(len(handles) / len(orders))
    figure.legend(handles, labels, loc="outside lower center", ncols=n, frameon=False)
    figure.savefig(png, dpi=200)
    plt.close(figure)


def panel(axis: Axes, table: pd.DataFrame, orders: list[str]) -> None:
    """Draw one construction."""
    first = table.iloc[0]
    name = first["sentence_type"] + (" (taught)" if first["is_taught"] else "")
    axis.set_title(f"{fill(name, 32)}\n", fontsize=7, pad=8)
    axis.text(0.5, 1.02, fill(first["example"], 42), transform=axis.transAxes, fontsize=5.5,
              style="italic", ha="center", va="bottom", color="0.3")  # fmt: skip
    for role, name in ROLES.items():
        for order, dash in zip(orders, DASHES, strict=False):
            line = table[(table["role"] == role) & (table["arg_order"] == order)]
            line = line.sort_values("step")
            x, mean, error = (line[c].to_numpy(float) for c in ("trained", "mean", "error"))
            style = {"color": COLOURS[role], "linewidth": 1}
            axis.plot(x, mean, linestyle=dash, label=f"{name}, {order} order", **style)
            axis.fill_between(
                x, mean - error, mean + error, color=COLOURS[role], alpha=0.2, linewidth=0
            )
    axis.margins(x=0.02)
    axis.grid(alpha=0.25, linewidth=0.4)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.get_major_locator().set_params(integer=True)


if __name__ == "__main__":
    main()
