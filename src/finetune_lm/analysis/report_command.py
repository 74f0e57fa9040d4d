"""``finetune-lm report RUN_DIR...``."""

from __future__ import annotations

import argparse

from finetune_lm.arguments.subcommands import SubcommandParser


def parser() -> SubcommandParser:
    """What the command takes."""
    made = SubcommandParser(
        "report",
        "Write a report on runs: one HTML file that needs no network, and, in NAME_figures\n"
        "beside it, each figure as PDF with its data as CSV. Runs that differ only in their\n"
        "seeds are shown as one, with intervals over seeds; other runs side by side.",
    )
    made.add_argument(
        "run_dirs", metavar="RUN_DIR", nargs="+", help="The output directory of a run."
    )
    made.add_argument(
        "--by",
        nargs="+",
        action="extend",
        metavar="CONDITION",
        help="The columns that define conditions: metadata, or region. Lines are the values of "
        "the last one, panels those of the others. Default: condition, if there is such a "
        "column.",
    )
    made.add_argument(
        "--fillers",
        nargs="+",
        action="extend",
        metavar="DATA",
        help="The data sets that should not change, which show what was forgotten. Default: "
        "those with 'filler' in their name.",
    )
    made.add_argument(
        "--out", default="report.html", metavar="FILE", help="The HTML file. Default: report.html"
    )
    return made


def do(args: argparse.Namespace) -> str:
    """Write the report.

    Returns:
        Where it is, in a line.

    Raises:
        UserError: If there is nothing that can be shown.
    """
    from finetune_lm.analysis.report import report

    files = report(args.run_dirs, by=args.by, out=args.out, fillers=args.fillers)
    return f"{files.page}\n"
