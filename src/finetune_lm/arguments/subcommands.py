"""The commands beside a run: what a first word without ``--`` may be, and how each reads the rest.

Each is a module with two functions: ``parser()`` returns its `SubcommandParser`, and ``do(args)``
does it with what that has read, and returns what to print on stdout, if anything. A module is
imported when its command is given; what is heavy it imports inside ``do``.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError


@dataclass(frozen=True)
class Subcommand:
    """One of them.

    Attributes:
        module: Where it is done.
        summary: What it does, for the help of the whole.
        makes_runs: Whether it does what several processes do together; of all else only the first
            one does anything.
    """

    module: str
    summary: str
    makes_runs: bool = False

    def load(self) -> Any:
        """Its module."""
        return importlib.import_module(self.module)


SUBCOMMANDS: dict[str, Subcommand] = {
    "demo": Subcommand(
        "finetune_lm.demo",
        "Teach a tiny model a made-up verb, offline in about a minute, and see what it learned.",
        makes_runs=True,
    ),
    "grid": Subcommand(
        "finetune_lm.grids.grid_command",
        "Do many runs, described in one file, that differ in some arguments; see docs/grids.md.",
        makes_runs=True,
    ),
    "sbatch": Subcommand(
        "finetune_lm.slurm.sbatch",
        "Print a script for SLURM's sbatch that does a run or a study, and resumes it when it "
        "was stopped.",
    ),
    "pairs": Subcommand(
        "finetune_lm.analysis.pairs_command",
        "Make tables of pairs, predictions and contrasts from the token tables of a run.",
    ),
    "words": Subcommand(
        "finetune_lm.runs.words_command",
        "Make tables of words from the token tables of runs.",
    ),
    "report": Subcommand(
        "finetune_lm.analysis.report_command",
        "Write a report on runs, as HTML, PDF and CSV; see docs/report.md.",
    ),
}
"""By the word that begins the command line, as the help lists them."""


class SubcommandParser(argparse.ArgumentParser):
    """Reads the words behind a command.

    Args:
        name: The command.
        description: What it does, for its help.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=f"finetune-lm {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        self.add_argument("--help", "-h", action="store_true", help="Show this help.")
        self.add_argument(
            "--debug",
            action="store_true",
            help="After a user's error, show where in the code it was found.",
        )

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say.

        Raises:
            UserError: If they are not what the command takes.
        """
        args, unknown = self.parse_known_args(list(words))
        names = [name for action in self._actions for name in action.option_strings]
        problems = [
            f"{self.prog}: {word} is not an argument."
            + did_you_mean(word, [name for name in names if name.startswith("--")])
            for word in unknown
        ]
        if problems:
            raise UserError(*problems)
        return args

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{message.removesuffix('.')}. {self.prog} --help shows what it takes.")


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the words behind a command ask for its help, whatever else they say."""
    return not {"--help", "-h"}.isdisjoint(words)
