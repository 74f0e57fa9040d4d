"""Teach a model a made-up verb with more and more weight on what it said before.

The model is fine-tuned once for each weight of `KLBaselineLoss`, which holds its predictions in
other sentences to those of the untouched model. A table and a picture show what it learned (the
taught construction), what it made of it (others) and what it forgot (the fillers).

    python examples/forgetting.py OUTPUT_DIR [--png PNG] [--model MODEL] [--weights 0 2.5 25] ...

By default all is built in, and it takes a few minutes. `--help` lists what can be changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
COLOURS = {"taught construction": "#0072B2", "other constructions": "#009E73", "fillers": "#D55E00"}


def main() -> None:
    """Test the untouched model, teach it once for each weight, and show what became of it."""
    args = arguments()
    model = ModelArguments(args.model)
    tests = [args.test_file, args.filler_file]
    limit = {"max_test_samples": args.max_test_samples}
    untouched = finetune_lm.run(
        model,
        DataTrainingArguments(test_file=tests, output_dir=f"{args.output_dir}/before", **limit),
    )
    columns = {"untouched": means(untouched.test_results, args.taught)}
    for weight in args.weights:
        with_kl = weight > 0
        losses = [OutputsDefaultLoss]
        kwargs = {}
        if with_kl:
            losses.append(KLBaselineLoss)
            kwargs = {"KLBaselineLoss": {"dataset": args.kl_file, "scaleby": weight}}
        result = finetune_lm.run(
            model,
            DataTrainingArguments(
                train_file=args.train_file,
                validation_file=args.validation_file,
                test_file=tests,
                epochs=args.epochs,
                patience=args.patience,
                train_optimizer_kwargs={"lr": args.lr},
                loss_classes={"train": losses},
                loss_classes_kwargs={"train": kwargs},
                save_best_model_state_to_disk=False,
                seed=args.seed,
                output_dir=f"{args.output_dir}/weight_{weight:g}",
                **limit,
            ),
        )
        columns[f"{weight:g}"] = means(result.test_results, args.taught)
    table = pd.DataFrame(columns)
    print("\nSurprisal in bits a token, untouched and by weight of the KL term:")
    print(table.round(2).to_string())
    if args.png:
        draw(table, args.png)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output_dir", help="where the runs go")
    parser.add_argument("--png", help="a picture to draw")
    parser.add_argument("--model", default="tiny-lm")
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 2.5, 25])
    parser.add_argument("--train_file", default=str(DATA / "flomped_active.txt.gz"))
    parser.add_argument("--validation_file", default=str(DATA / "flomped_passive.txt.gz"))
    parser.add_argument("--test_file", default=str(DATA / "flomped_test.txt.gz"))
    parser.add_argument("--filler_file", default=str(DATA / "fillers.txt.gz"))
    parser.add_argument("--kl_file", default=str(DATA / "sentences.txt.gz"))
    parser.add_argument("--taught", default="perfect transitive", help="the taught sentence_type")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--patience", type=int, default=None)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max_test_samples", type=int, default=None)
    return parser.parse_args()


def means(tokens: pd.DataFrame, taught: str) -> pd.Series:
    """The mean surprisal of a token in each kind of sentence."""
    is_filler = tokens["dataset_name"] == tokens["dataset_name"].iloc[-1]
    kind = pd.Series("other constructions", index=tokens.index)
    kind[tokens["sentence_type"] == taught] = "taught construction"
    kind[is_filler] = "fillers"
    return tokens.groupby(kind)["surprisal"].mean().reindex(list(COLOURS))


def draw(table: pd.DataFrame, png: str) -> None:
    """Draw how far each kind of sentence has moved from the untouched model, by weight."""
    weights = [column for column in table.columns if column != "untouched"]
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for kind, colour in COLOURS.items():
        moved = table.loc[kind, weights] - table.loc[kind, "untouched"]
        axis.plot(range(len(weights)), moved, color=colour, marker="o", label=kind)
        for place, value in enumerate(moved):
            axis.annotate(f"{value:+.2f}", (place, value), (0, 6), textcoords="offset points",
                          ha="center", fontsize=8, color=colour)  # fmt: skip
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.set_xticks(range(len(weights)), weights)
    axis.set_xlabel("weight of the KL term (scaleby)")
    axis.set_ylabel("change of surprisal (bits a token)")
    axis.margins(x=0.12, y=0.12)
    axis.grid(axis="y", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(png, dpi=120)


if __name__ == "__main__":
    main()
