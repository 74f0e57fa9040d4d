"""Teach a tiny model a made-up verb and see what it learned.

`tiny-lm` has never met "flomped". It is taught active sentences in which people flomp drinks ("The
teacher has always flomped the juice."), validated on passives, and tested, before and after, on
many constructions with the arguments as taught and the other way round, and on sentences with verbs
that it knew before. Offline, in about a minute:

    python examples/demo.py [OUTPUT_DIR]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.results.output_directory import choose_output_dir

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
TEST_FILES = [str(DATA / "flomped_test.txt.gz"), str(DATA / "fillers.txt.gz")]


def main() -> None:
    """Test the untouched model, teach it, test it again, and print what changed."""
    given = sys.argv[1] if len(sys.argv) > 1 else "outputs/demo/{now}"
    # One time in the name of both directories.
    output_dir = choose_output_dir(given, "tiny-lm", [])
    model = ModelArguments("tiny-lm")

    print("Testing the model as it is ...", file=sys.stderr)
    before = finetune_lm.run(
        model, DataTrainingArguments(test_file=TEST_FILES, output_dir=str(output_dir / "before"))
    )
    print("Teaching it to flomp ...", file=sys.stderr)
    after = finetune_lm.run(
        model,
        DataTrainingArguments(
            train_file=str(DATA / "flomped_active.txt.gz"),
            validation_file=str(DATA / "flomped_passive.txt.gz"),
            test_file=TEST_FILES,
            epochs=30,
            patience=10,
            per_device_train_batch_size=16,
            train_optimizer_kwargs={"lr": 1e-4},
            seed=1,
            output_dir=str(output_dir / "after"),
        ),
    )
    print(report(before.test_results, after.test_results))
    print(f"\nBest epoch: {after.best_epoch}, validation loss {after.best_loss:.3f} nats a token.")
    print(f"The tables, the curves and the model are in {output_dir}")


def report(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Mean surprisal of the verb's two arguments, as taught and reversed, before and after."""
    table = pd.concat({"before": arguments(before), "after": arguments(after)}, axis=1)
    for when in ("before", "after"):
        table[(when, "reversed - expected")] = table[(when, "reversed")] - table[(when, "expected")]
    columns = ["expected", "reversed", "reversed - expected"]
    table = table[[(when, column) for when in ("before", "after") for column in columns]]
    title = "Mean surprisal of the verb's arguments in bits, in the expected order and reversed\n"
    return f"\n{title}\n{table.to_string(float_format='{:.2f}'.format)}"


def arguments(results: pd.DataFrame) -> pd.DataFrame:
    """Mean surprisal of subject and object by kind of sentence and order of arguments."""
    plain = results["word"].str.lower().str.strip(".,?")
    is_argument = (plain == results["word_subj"]) | (plain == results["word_obj"])
    # A word costs what its tokens cost together.
    keys = ["dataset_name", "example_num", "word_num", "sentence_type", "taught", "arg_order"]
    words = results[is_argument].groupby(keys)["surprisal"].sum().reset_index()
    words["sentences"] = "untaught: " + words["sentence_type"]
    words.loc[words["taught"], "sentences"] = "taught: " + words["sentence_type"]
    words.loc[words["dataset_name"] == "fillers", "sentences"] = "known verbs (fillers)"
    means = words.groupby(["sentences", "arg_order"])["surprisal"].mean().unstack()
    everything_untaught = words[words["sentences"].str.startswith("untaught")]
    means.loc["all untaught"] = everything_untaught.groupby("arg_order")["surprisal"].mean()
    means.columns.name = None
    means.index.name = None
    order = ["taught", "untaught", "all untaught", "known"]
    return means.sort_index(
        key=lambda names: [
            max(i for i, begin in enumerate(order) if name.startswith(begin)) for name in names
        ],
        kind="stable",
    )


if __name__ == "__main__":
    main()
