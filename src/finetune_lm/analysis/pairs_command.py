"""``finetune-lm pairs RUN_DIR``: tables of pairs of the token tables that a run has left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_lm.analysis.comparisons import Wanted
from finetune_lm.analysis.pair_tables import (
    PAIRS_SUFFIX,
    RESULTS_SUFFIX,
    SUMMARY_SUFFIX,
    pair_tables,
)
from finetune_lm.analysis.pairs import Asked, needed_columns, start_token_of
from finetune_lm.arguments.subcommands import SubcommandParser
from finetune_lm.constants import CONFIG_YAML, RUN_JSON
from finetune_lm.errors import UserError
from finetune_lm.formulas import parse_contrasts
from finetune_lm.recording.table_text import TableText
from finetune_lm.recording.typed_rows import table_pieces
from finetune_lm.whole_files import unsealed

_CONTRAST = "--contrasts."
_TABLES = {"test": f"*-test{RESULTS_SUFFIX}", "probe": f"probe{RESULTS_SUFFIX}"}
"""Where a run has the rows of each type of data, as patterns."""


class _Parser(SubcommandParser):
    """Takes ``--contrasts.NAME FORMULA`` beside arguments of fixed names."""

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """What the words say.

        Raises:
            UserError: If they are not what the command takes.
        """
        rest: list[str] = []
        contrasts: dict[str, str] = {}
        left = iter(words)
        for word in left:
            name, equals, formula = word.removeprefix(_CONTRAST).partition("=")
            if not word.startswith(_CONTRAST):
                rest.append(word)
                continue
            value = formula if equals else next(left, "")
            if not name or not value:
                raise UserError(f"{word} must be followed by a formula, as in 'a - b'.")
            if name in contrasts:
                raise UserError(f"{_CONTRAST}{name} is given twice.")
            contrasts[name] = value
        args = super().read(rest)
        args.contrasts = contrasts
        return args


def parser() -> SubcommandParser:
    """What the command takes."""
    made = _Parser(
        "pairs",
        "Compare the sentences of each item in the token tables of a run: minimal pairs, the\n"
        "predictions of SyntaxGym suites, and contrasts between conditions. Writes\n"
        f"NAME{PAIRS_SUFFIX} and NAME{SUMMARY_SUFFIX} beside each NAME_results.csv.gz, as a\n"
        "run itself does if its data have pairs.",
    )
    made.add_argument("run_dir", metavar="RUN_DIR", help="The output directory of a run.")
    made.add_argument(
        f"{_CONTRAST}NAME",
        metavar="FORMULA",
        help="A difference between conditions, such as 'reversed - expected', besides those of "
        "the run. May be given several times, under different names.",
    )
    made.add_argument(
        "--pair_region",
        metavar="NAME",
        help="Score pairs, and contrasts that name no region, over the region of this name.",
    )
    return made


def do(args: argparse.Namespace) -> str:
    """Make the tables.

    Returns:
        Which files were written, one a line.

    Raises:
        UserError: If the directory is not one of a run, or nothing in it can be compared.
    """
    directory = Path(args.run_dir)
    config, record = _read(directory)
    contrasts = {**config.get("contrasts", {}), **args.contrasts}
    region = config.get("pair_region") if args.pair_region is None else args.pair_region
    wanted = Wanted(parse_contrasts(contrasts), None if region is None else str(region))
    start_tokens = record.get("start_tokens")
    start_token = None if start_tokens is None else start_token_of(start_tokens)
    written: list[Path] = []
    found: set[str | None] = set()
    for kind, pattern in _TABLES.items():
        for table in sorted(directory.glob(pattern)):
            # Where contrasts are new, they may be of any data.
            known = record.get("pairs", {}).get(kind, {})
            datasets = None if args.contrasts or "pairs" not in record else list(known)
            names = _write(table, Asked(wanted, known, datasets, start_token))
            found |= names
            if names:
                stem = str(table).removesuffix(RESULTS_SUFFIX)
                written += [Path(stem + PAIRS_SUFFIX), Path(stem + SUMMARY_SUFFIX)]
    if not written:
        raise UserError(
            f"{directory} must have a table of test or probe results in which sentences can be "
            f"compared, but has none: their data need 'item' or 'pair', 'condition' and "
            f"'expected', or contrasts of conditions that are there."
        )
    if missing := [name for name in args.contrasts if name not in found]:
        raise UserError(*(_never_found(name, contrasts[name]) for name in missing))
    return "".join(f"{path}\n" for path in written)


def _never_found(name: str, text: str) -> str:
    return f"contrasts.{name}: no data set has all conditions and regions of {text!r}."


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and the record of a run."""
    import yaml

    if not directory.is_dir():
        raise UserError(f"RUN_DIR must be the output directory of a run, but {directory} is none.")
    found: list[dict[str, Any]] = []
    for name, read in (
        (CONFIG_YAML, lambda path: yaml.safe_load(path.read_bytes())),
        (RUN_JSON, unsealed),
    ):
        try:
            values = read(directory / name)
        except FileNotFoundError:
            raise UserError(
                f"RUN_DIR must be the output directory of a run, but {directory} has no {name}."
            ) from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{directory / name} cannot be read: {error}.") from None
        found.append(values if isinstance(values, dict) else {})
    return found[0], found[1]


def _write(table: Path, asked: Asked) -> set[str | None]:
    """Write the tables of pairs of one table of tokens.

    Returns:
        The names of what was compared, None among them for pairs; none where nothing was.
    """
    stem = table.with_name(table.name.removesuffix(RESULTS_SUFFIX))
    columns = TableText(table).columns
    with pair_tables(stem, asked, columns) as tables:
        if tables is None:
            return set()
        for rows in table_pieces(table, needed_columns(columns)):
            tables.add(rows)
        tables.end_pass()
    return tables.names
