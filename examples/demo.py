"""Teach a tiny model a made-up verb and see what it learned.

`tiny-lm` has never met "flomped". It is taught active sentences in which people flomp drinks ("The
teacher has always flomped the juice."), validated on passives, and tested, before and after, on
many constructions with the arguments as taught and the other way round, and on sentences with verbs
that it knew before. Test sentences that it was taught or validated on are left out of what is
shown, and nouns before the verb, which cannot reflect it, stand apart. Offline, in about a minute:

    python examples/demo.py [OUTPUT_DIR]
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.runs.directory import choose_output_dir

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


def report(untouched: pd.DataFrame, taught: pd.DataFrame) -> str:
    """What the verb's two arguments cost as taught and reversed, before and after, and what of it.

    Args:
        untouched: The test results of the model as it was.
        taught: The test results of the same lines after it was taught.
    """
    table = differences(untouched, taught)
    title = "Mean surprisal of the verb's arguments in bits, in the expected order and reversed"
    left_out = f"(without {n_seen(taught)} lines that it learned from or that chose the epoch)"
    shown = table.to_string(float_format="{:.2f}".format)
    return f"\n{title}\n{left_out}\n\n{shown}\n\n{conclusion(table)}"


def n_seen(results: pd.DataFrame) -> int:
    """How many test lines are in the training or validation file."""
    seen = results[results["seen_in"].notna()]
    return len(seen[["dataset_name", "example_num"]].drop_duplicates())


PAIR = ["dataset_name", "sentence_type", "item"]


def differences(untouched: pd.DataFrame, taught: pd.DataFrame) -> pd.DataFrame:
    """Mean surprisal of the arguments by their place, kind of sentence and order.

    Lines that were seen before are left out, together with those that differ from them in the order
    of the arguments alone: nothing could be compared with these.
    """
    seen = pd.MultiIndex.from_frame(taught.loc[taught["seen_in"].notna(), PAIR].drop_duplicates())
    parts = {
        when: arguments(results[~pd.MultiIndex.from_frame(results[PAIR]).isin(seen)])
        for when, results in (("untouched", untouched), ("taught", taught))
    }
    table = pd.concat(parts, axis=1)
    for when in parts:
        table[(when, "difference")] = table[(when, "reversed")] - table[(when, "expected")]
    columns = ["expected", "reversed", "difference"]
    return table[[(when, column) for when in parts for column in columns]]


def arguments(results: pd.DataFrame) -> pd.DataFrame:
    """Mean surprisal of the arguments by place and kind of sentence (rows) and order (columns).

    What stands before the verb cannot reflect it: the model has not read it yet.
    """
    plain = results["word"].str.lower().str.strip(".,?")
    example = ["dataset_name", "example_num"]
    verbs = results[plain == results["verb"]].groupby(example)["word_num"].first()
    results = results.join(verbs.rename("verb_num"), on=example)
    is_argument = (plain == results["word_subj"]) | (plain == results["word_obj"])
    # A word costs what its tokens cost together.
    keys = [*example, "word_num", "verb_num", "sentence_type", "arg_order"]
    words = results[is_argument].groupby(keys)["surprisal"].sum().reset_index()
    words["noun"] = (words["word_num"] < words["verb_num"]).map({True: BEFORE, False: BEHIND})
    is_known = words["dataset_name"] == "fillers"
    words["sentences"] = words["sentence_type"].where(~is_known, KNOWN)
    means = words.groupby(["noun", "sentences", "arg_order"])["surprisal"].mean().unstack()
    means.columns.name = None
    return means.sort_index(
        level=["noun", "sentences"],
        key=lambda names: [(name == BEFORE, name == KNOWN, name) for name in names],
        sort_remaining=False,
    )


BEHIND, BEFORE = "behind the verb", "before the verb"
KNOWN = "known verbs (fillers)"


def conclusion(table: pd.DataFrame) -> str:
    """In a sentence, what the table says about the nouns that can reflect the verb.

    Args:
        table: As `differences` makes it.
    """
    untaught = table.loc[BEHIND].drop(index=KNOWN, errors="ignore")
    before, after = (untaught[(when, "difference")] for when in ("untouched", "taught"))
    n, n_grown = len(untaught), int((after > before).sum())
    growth = after.mean() - before.mean()
    verdict = (
        "what it was taught of the verb carries over to constructions that it was not taught"
        if growth > 0 and n_grown > n / 2
        else "what it was taught of the verb does not carry over to other constructions"
    )
    return (
        f"Behind the verb the difference went from {before.mean():.2f} to {after.mean():.2f} bits, "
        f"and grew in {n_grown} of {n} constructions: {verdict}."
    )


if __name__ == "__main__":
    main()
