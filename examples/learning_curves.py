"""Draw how the surprisal of a verb's two arguments changes while a model is taught the verb.

The output directory is that of a run of `tiny-lm` on the files in data/nonce_verb, such as
examples/lm.sh leaves behind: active sentences to train on, passives to validate on.

    python examples/learning_curves.py OUTPUT_DIR PNG
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

import finetune_lm

PANELS = {
    "train": "Training on actives:\n“The teacher has always flomped the juice.”",
    "validation": "Validation on passives:\n“The juice has always been flomped by the teacher.”",
}
# The first noun of an active sentence is the subject of the verb, that of a passive its object.
FIRST_NOUN = {"train": "who flomps (teacher)", "validation": "what is flomped (juice)"}
LAST_NOUN = {"train": "what is flomped (juice)", "validation": "who flomps (teacher)"}
COLOURS = {"who flomps (teacher)": "#0072B2", "what is flomped (juice)": "#D55E00"}


def main() -> None:
    """Read the table of a run and draw it."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    output_dir, png = sys.argv[1:]
    nouns = argument_surprisals(finetune_lm.load_metrics(output_dir))

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axis, (dataset_type, title) in zip(axes, PANELS.items(), strict=True):
        draw(axis, nouns[nouns["dataset_type"] == dataset_type])
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
    axes[0].set_ylabel("surprisal of the noun (bits)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    figure.savefig(png, dpi=120)


def argument_surprisals(metrics: pd.DataFrame) -> pd.DataFrame:
    """The surprisal of the second word (the first noun) and the last word of every sentence."""
    # The full stop is a token of the last word; only the noun is of interest here.
    tokens = metrics[metrics["token"] != "."]
    sentence = ["dataset_type", "epoch", "example_num"]
    words = tokens.groupby([*sentence, "word_num"])["surprisal"].sum().reset_index()
    is_last = words["word_num"] == words.groupby(sentence)["word_num"].transform("max")
    nouns = words[is_last | (words["word_num"] == 1)].copy()
    last = nouns["dataset_type"].map(LAST_NOUN)
    nouns["argument"] = last.where(nouns["word_num"] > 1, nouns["dataset_type"].map(FIRST_NOUN))
    return nouns


def draw(axis: Axes, nouns: pd.DataFrame) -> None:
    """Draw the mean over sentences as a line, and the middle half of them as a band."""
    for argument, colour in COLOURS.items():
        by_epoch = nouns[nouns["argument"] == argument].groupby("epoch")["surprisal"]
        epochs = by_epoch.mean().index.to_numpy(dtype=int)
        low, high = by_epoch.quantile(0.25), by_epoch.quantile(0.75)
        axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(epochs, by_epoch.mean(), color=colour, marker="o", markersize=3, label=argument)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.get_major_locator().set_params(integer=True)


if __name__ == "__main__":
    main()
