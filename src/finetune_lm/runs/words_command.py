"""The command ``finetune-lm words DIRECTORY ...``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune_lm.arguments.subcommands import SubcommandParser
from finetune_lm.errors import UserError
from finetune_lm.messages import say

if TYPE_CHECKING:
    from finetune_lm.recording.word_table import WordTable

_DESCRIPTION = """\
Make tables of words from the tables of tokens in the output directories of runs:
words.csv.gz, probe_words.csv.gz and PREFIX-test_words.csv.gz, identical to the byte
to those that --word_tables writes. Existing tables of words are replaced.
"""


class _Wanted(NamedTuple):
    """A table of words that is to be made."""

    tokens: Path
    path: Path
    facts: dict[str, Any]

    def make(self) -> WordTable:
        """Make it."""
        from finetune_lm.analysis.frames_of_words import make_word_table

        over_word, pll = self.facts.get("over_word", {}), self.facts.get("pll", {})
        return make_word_table(self.tokens, self.path, over_word=over_word, pll=pll)


def parser() -> SubcommandParser:
    """Reads the words behind ``words``."""
    made = SubcommandParser("words", _DESCRIPTION)
    made.add_argument(
        "directories", metavar="DIRECTORY", nargs="+", help="The output directory of a run."
    )
    return made


def do(args: argparse.Namespace) -> str:
    """Make the tables.

    Raises:
        UserError: If a directory is none of a run. Nothing is made then.
    """
    problems: list[str] = []
    wanted: list[_Wanted] = []
    for name in dict.fromkeys(args.directories):
        try:
            wanted += _wanted_in(Path(name))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for each in wanted:
        try:
            table = each.make()
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{each.path} cannot be written: {reason}.") from error
        say(f"{each.path}: {table.n_rows:,} words")
        table.tell()
    return ""


def _wanted_in(directory: Path) -> list[_Wanted]:
    """The tables of words that can be made in a directory.

    Raises:
        UserError: If there is none, or the run that writes there writes them itself.
    """
    # They take a moment to import, which the help need not.
    from finetune_lm.runs.directory import (
        METRICS,
        PROBE_RESULTS,
        RUN_JSON,
        TEST_RESULTS_SUFFIX,
        words_path,
    )
    from finetune_lm.whole_files import unsealed

    try:
        record = unsealed(directory / RUN_JSON)
    except (OSError, ValueError):
        raise UserError(
            f"words needs the output directory of a run but {directory} has no {RUN_JSON}, or a "
            f"damaged one."
        ) from None
    if record.get("identity", {}).get("word_tables") and record.get("state") != "finished":
        raise UserError(
            f"the run in {directory} is not finished, and writes its tables of words itself."
        )
    found = [directory / METRICS, directory / PROBE_RESULTS]
    found += sorted(directory.glob(f"*{TEST_RESULTS_SUFFIX}"))
    tables = [path for path in found if path.is_file() and path.stat().st_size]
    if not tables:
        raise UserError(f"words needs tables of tokens but {directory} has none.")
    facts = record.get("words", {})
    return [_Wanted(path, words_path(path), facts) for path in tables]
