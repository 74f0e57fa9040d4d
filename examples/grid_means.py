"""What the nouns of each construction cost after each teaching, from the table of a grid.

    python examples/grid_means.py outputs/examples/grid.parquet

Tokens are summed to words, words are averaged over sentences, and these means over seeds.
"""

from __future__ import annotations

import sys

import pandas as pd

import finetune_lm

NOUNS = ["word_subj", "word_obj"]


def means(path: str) -> pd.DataFrame:
    """Bits a noun, by what was taught, the loss, the voice and the order of the nouns."""
    tokens = finetune_lm.load_grid(path)
    tokens = tokens[tokens["verb"] == "flomped"]
    run = ["run", "training", "loss", "seed"]
    sentence = ["example_num", "voice", "arg_order", *NOUNS]
    by_word = [*run, *sentence, "word_num", "word"]
    words = tokens.groupby(by_word, as_index=False)["surprisal"].sum()
    nouns = words[(words["word"] == words["word_subj"]) | (words["word"] == words["word_obj"])]
    what = ["training", "loss", "voice", "arg_order"]
    by_seed = nouns.groupby([*what, "seed"])["surprisal"].mean()
    return by_seed.groupby(what).agg(["mean", "std", "size"]).round(2)


if __name__ == "__main__":
    print(means(sys.argv[1]).to_string())
