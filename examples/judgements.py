"""Set human judgements beside what a model prefers.

Reads the table of pairs of a run (PREFIX-test_pairs.csv.gz) and draws, for each item, a number of
its metadata against a contrast, with the correlation r and the number of items n.

    python examples/judgements.py PAIRS_TABLE CONTRAST METADATA PICTURE

DAIS (Hawkins et al. 2020) has such judgements for English datives. Those in data/pairs are made up.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np

import finetune_lm


def main() -> None:
    """Draw the picture, and print r and n."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", help="A table of pairs.")
    parser.add_argument("contrast", help="The name of a contrast in it.")
    parser.add_argument("metadata", help="A column of numbers: the judgements.")
    parser.add_argument("picture", help="Where the picture goes: .png, .pdf or .svg.")
    args = parser.parse_args()

    pairs = finetune_lm.load_metrics(args.pairs)
    items = pairs[pairs["comparison_name"] == args.contrast]
    items = items.dropna(subset=["difference", args.metadata])
    if len(items) < 3:
        parser.error(f"fewer than three items have the contrast {args.contrast}.")
    judged, difference = (items[name].astype(float) for name in (args.metadata, "difference"))
    r, n = np.corrcoef(judged, difference)[0, 1], len(items)

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.scatter(judged, difference, s=14, color="#0072B2")
    slope, intercept = np.polyfit(judged, difference, 1)
    ends = np.array([judged.min(), judged.max()])
    axes.plot(ends, intercept + slope * ends, color="#D55E00")
    axes.set_xlabel(args.metadata)
    axes.set_ylabel(f"{args.contrast} (bits)")
    axes.set_title(f"{items['model_name'].iloc[0]}: r = {r:.2f}, n = {n}")
    figure.savefig(args.picture, dpi=200)
    print(f"r = {r:.3f}, n = {n}")


if __name__ == "__main__":
    main()
