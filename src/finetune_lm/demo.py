"""The command ``finetune-lm demo``: teach a tiny model a made-up verb and see what it learned.

`tiny-lm` has never met "flomped". It is taught active sentences in which people flomp drinks ("The
teacher has always flomped the juice."), and validated on passives. Before the training, and after
each epoch, many constructions are measured with the arguments as taught and the other way round,
and so are sentences with verbs that it knew before. Sentences that it was taught or validated on
are left out of the table, and nouns before the verb, which cannot reflect it, stand apart. At the
end there is a report, for a browser.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.arguments.subcommands import SubcommandParser
from finetune_lm.errors import UserError
from finetune_lm.messages import say
from finetune_lm.ranks import world

if TYPE_CHECKING:
    import pandas as pd

_DESCRIPTION = """\
Teach tiny-lm, a model that comes with the program, a made-up verb, print what it
learned, and write a report for a browser. Offline, in about a minute.
"""


def parser() -> SubcommandParser:
    """Reads the words behind ``demo``."""
    made = SubcommandParser("demo", _DESCRIPTION)
    made.add_argument(
        "output_dir",
        metavar="OUTPUT_DIR",
        nargs="?",
        default="outputs/demo/{now}",
        help="Where to write the run and the report; {now} stands for the time. Default: "
        "outputs/demo/{now}",
    )
    made.add_argument(
        "--epochs", type=int, default=30, help="Maximum number of epochs. Default: 30"
    )
    return made


def do(args: argparse.Namespace) -> str:
    """Teach the model, write the report, and tell what changed.

    Of several ranks, which teach it together, the first does all but that.

    Raises:
        UserError: If the data of the demo are not there, or as a run raises it.
    """
    import finetune_lm
    from finetune_lm import DataTrainingArguments, ModelArguments
    from finetune_lm.runs.directory import choose_output_dir

    data = demo_data()
    output_dir = world().decided(choose_output_dir, args.output_dir, "tiny-lm", [])
    probed = [f"{name}.txt.gz" for name in ("flomped_test", "fillers")]
    teaching = DataTrainingArguments(
        train_file=str(data / "flomped_active.txt.gz"),
        validation_file=str(data / "flomped_passive.txt.gz"),
        probe_file=[str(output_dir / "data" / name) for name in probed],
        epochs=args.epochs,
        patience=10,
        per_device_train_batch_size=max(1, 16 // world().size),
        train_optimizer_kwargs={"lr": 1e-4},
        seed=1,
        output_dir=str(output_dir / "run"),
    )
    if problems := teaching.problems():
        raise UserError(*problems)

    def write_data() -> None:
        for name in probed:
            as_pairs(data / name, output_dir / "data")

    try:
        world().decided(write_data)
    except OSError as error:
        raise UserError(f"{output_dir} cannot be written: {error.strerror or error}.") from error
    say("Teaching a model to flomp ...")
    taught = finetune_lm.run(ModelArguments("tiny-lm"), teaching)
    if not world().is_first:
        return ""
    probes = taught.probe_results
    assert probes is not None
    is_untouched, is_taught = probes["step"] == 0, probes["epoch"] == taught.best_epoch
    written = finetune_lm.report(taught.output_dir, by="arg_order", out=output_dir / "report.html")
    return (
        f"{report(probes[is_untouched], probes[is_taught])}\n\n"
        f"Best epoch: {taught.best_epoch}, validation loss {taught.best_loss:.3f} nats a token.\n"
        f"The tables, the curves and the model are in {taught.output_dir}\n"
        f"What was learned, carried over and forgotten: open {written.page} in a browser\n"
    )


def demo_data() -> Path:
    """The directory with the data: within an installed package, or beside the source.

    Raises:
        UserError: If it is in neither place.
    """
    places = (
        Path(__file__).parent / "demo_data",
        Path(__file__).parents[2] / "data" / "nonce_verb",
    )
    for place in places:
        if (place / "flomped_active.txt.gz").is_file():
            return place
    raise UserError(
        f"demo needs its data but {places[0]} is not there. Install finetune-lm from a wheel or "
        f"from a whole copy of the repository."
    )


def as_pairs(path: Path, directory: Path) -> str:
    """Copy a data file with metadata that make minimal pairs of both orders of the arguments.

    Args:
        path: The data file.
        directory: Where the copy goes.

    Returns:
        The copy.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".txt.gz") + "_metadata.json.gz"
    with gzip.open(path.with_name(name), "rt", encoding="utf-8") as lines:
        metadata = [json.loads(line) for line in lines]
    with gzip.open(directory / name, "wt", encoding="utf-8") as file:
        for each in metadata:
            order = each["arg_order"]
            more = {"condition": order, "expected": order == "expected"}
            file.write(json.dumps({**each, **more, "phenomenon": each["sentence_type"]}) + "\n")
    return str(shutil.copy(path, directory))


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
    import pandas as pd

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
    ranks = [(noun == BEFORE, kind == KNOWN, kind) for noun, kind in means.index]
    return means.iloc[sorted(range(len(ranks)), key=ranks.__getitem__)]


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
        "what it learned about the verb carries over to constructions that it was not taught"
        if growth > 0 and n_grown > n / 2
        else "what it learned about the verb does not carry over to other constructions"
    )
    return (
        f"After the verb the difference went from {before.mean():.2f} to {after.mean():.2f} "
        f"bits, and grew in {n_grown} of {n} constructions: {verdict}."
    )
