"""A report of runs: one HTML file, and its figures as PDF with their data as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.analysis.figure_parts import Figure
from finetune_lm.analysis.heat_strips import Strips, as_plain
from finetune_lm.analysis.item_values import Conditions
from finetune_lm.analysis.report_frames import Results, ends_frame
from finetune_lm.analysis.run_files import RunFiles, read_runs
from finetune_lm.analysis.run_groups import grouped
from finetune_lm.analysis.run_trajectories import LEARNED_FROM, RunTrajectories
from finetune_lm.analysis.token_passes import in_mode
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.constants import MODES, PROBE
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.recording.columns import SEED
from finetune_lm.recording.table_text import TableText
from finetune_lm.whole_files import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from finetune_lm.analysis.report_page import Page

CONDITION = "condition"
"""The column by which sentences are told apart where nothing else is said."""

REGION = "region"
FILLER = "filler"
"""What the names of data have in them that should not change."""

_STEMS = (
    *("surprisal", "test", "accuracy", "difference", "accuracy_tests", "difference_tests"),
    *("before_after", "forgetting", "divergence", "loss"),
)
"""The figures in their order on the page."""

_STRIP_TYPES = (PROBE, "test", "validation", "train")
_MOST_TOKENS = 2_400_000
"""So many numbers of single tokens a page has, which keeps it below 6 MB."""


@dataclass(frozen=True)
class ReportFiles:
    """Where a report is.

    Attributes:
        page: The HTML file.
        figures: The directory of its figures and their data.
    """

    page: Path
    figures: Path


def report(
    directories: str | Path | Sequence[str | Path],
    *,
    by: str | Sequence[str] | None = None,
    out: str | Path = "report.html",
    fillers: Sequence[str] | None = None,
) -> ReportFiles:
    """Write a report of one run or several.

    Args:
        directories: Their output directories.
        by: The columns that say of which condition a sentence is, or a token, such as ``region``:
            lines of a figure are the values of the last one, panels those of the others. By
            default ``condition``, where there is such a column.
        out: The HTML file. Figures and data go into a directory beside it, ``NAME_figures``.
        fillers: The data sets that should not change; by default those that are called so.

    Returns:
        Where it is.

    Raises:
        UserError: If a directory is not one of a run, a column or data set is not there, there is
            nothing to show, or the files cannot be written.

    Example:
        >>> report("outputs/mine", by=["sentence_type", "arg_order"])  # doctest: +SKIP
    """
    given = [directories] if isinstance(directories, str | Path) else list(directories)
    runs = _with_tables(read_runs(given))
    names = [by] if isinstance(by, str) else by
    conditions = Conditions(_checked(names, runs) if names is not None else _default(runs))
    with _writable(Path(out)) as files:
        strips = [Strips(_MOST_TOKENS // len(runs)) for _ in runs]
        read = [
            RunTrajectories(run, conditions, each) for run, each in zip(runs, strips, strict=True)
        ]
        results = Results(read, grouped(runs), conditions)
        _write(results, strips, files, _fillers(results, fillers))
    return files


def _with_tables(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """The runs that have something to show."""
    empty = [run for run in runs if not _columns(run)]
    if len(empty) == len(runs):
        raise UserError(*map(_nothing, empty))
    for run in empty:
        warn(f"{_nothing(run)} It is left out.")
    return [run for run in runs if run not in empty]


def _nothing(run: RunFiles) -> str:
    return f"there is nothing to show: {run.name} has no table of tokens with a whole pass in it."


def _columns(run: RunFiles) -> list[str]:
    """The columns of all tables of a run."""
    return list(dict.fromkeys(n for table in run.token_tables for n in TableText(table).columns))


def _default(runs: Sequence[RunFiles]) -> list[str]:
    return [CONDITION] if all(CONDITION in _columns(run) for run in runs) else []


def metadata_of(runs: Sequence[RunFiles]) -> list[str]:
    """The columns that all runs have and that tell sentences or their parts apart."""
    found: list[list[str]] = []
    for run in runs:
        columns = [TableText(table).columns for table in run.token_tables]
        behind = [name for names in columns if SEED in names for name in _behind(names)]
        found.append(list(dict.fromkeys(behind)))
    return [name for name in found[0] if all(name in names for names in found[1:])]


def _behind(names: list[str]) -> list[str]:
    return [*names[names.index(SEED) + 1 :], *([REGION] if REGION in names else [])]


def _checked(by: Sequence[str], runs: Sequence[RunFiles]) -> list[str]:
    """The conditions that are asked for.

    Raises:
        UserError: About those that a run lacks.
    """
    problems = []
    for name in dict.fromkeys(by):
        without = [run for run in runs if name not in _columns(run)]
        if len(without) == len(runs):
            there = metadata_of(runs)
            shown = (
                f" The metadata have {', '.join(there)}." if there else " There are no metadata."
            )
            problems.append(
                f"--by must name a column of the tables of tokens, but there is none called {name}."
                f"{did_you_mean(name, [*there, *_columns(runs[0])]) or shown}"
            )
        elif without:
            others = f" and {len(without) - 1} others" if len(without) > 1 else ""
            there = metadata_of(runs)
            shown = f" All of them have {', '.join(there)}." if there else ""
            problems.append(
                f"--by must name columns that all runs have, but there is no {name} in "
                f"{without[0].name}{others}.{shown}"
            )
    if problems:
        raise UserError(*problems)
    return list(dict.fromkeys(by))


def _fillers(results: Results, given: Sequence[str] | None) -> list[str]:
    names = list(dict.fromkeys(name for run in results.runs for _, name in run.ends))
    if given is None:
        return [name for name in names if FILLER in name.lower()]
    there = f" There are {', '.join(names)}."
    # The name of data is that of both modes of a model.
    of_given = {name: {in_mode(name, mode) for mode in (None, *MODES)} & {*names} for name in given}
    if problems := [
        f"--fillers must name data that were measured, but there are none called {name}."
        f"{did_you_mean(name, names) or there}"
        for name in given
        if not of_given[name]
    ]:
        raise UserError(*problems)
    return [name for name in names if any(name in found for found in of_given.values())]


@contextmanager
def _writable(out: Path) -> Iterator[ReportFiles]:
    """See that a report can be written there, before anything is read.

    Raises:
        UserError: If it cannot be.
    """
    files = ReportFiles(out, out.with_name(f"{out.stem}_figures"))
    if out.is_dir():
        raise UserError(
            f"--out must be a file but {out} is a directory: try {out / 'report.html'}."
        )
    try:
        files.figures.mkdir(parents=True, exist_ok=True)
        with write_whole(files.figures / ".writable") as aside:
            aside.touch()
        (files.figures / ".writable").unlink()
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written: {error.strerror}.") from None
    try:
        yield files
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}.") from error
    finally:
        if files.figures.is_dir() and not any(files.figures.iterdir()):
            files.figures.rmdir()


def _write(
    results: Results, strips: Sequence[Strips], files: ReportFiles, fillers: Sequence[str]
) -> None:
    from finetune_lm.analysis.figure_pdf import save_pdf
    from finetune_lm.analysis.pair_figures import pair_figures, pairs_frame
    from finetune_lm.analysis.report_figures import token_figures
    from finetune_lm.analysis.report_page import add_strips, configuration_section
    from finetune_lm.analysis.report_tables import change_table, pairs_table

    ends, pairs = ends_frame(results), pairs_frame(results)
    figures = [*token_figures(results, ends, fillers), *pair_figures(results, pairs)]
    figures.sort(key=lambda figure: _STEMS.index(figure.stem))
    changes = change_table(results, ends, fillers)
    tables = {"in_short": changes, "pairs_in_short": pairs_table(results, pairs)}
    page = _page(results, figures, tables, files)
    shown = [
        {**as_plain(each, results.conditions), "title": _strip_title(results, place, each.dataset)}
        for place, run in enumerate(strips)
        for each in run.finish()
    ]
    # First what a report is most often opened for.
    shown.sort(key=lambda each: (_STRIP_TYPES.index(each["type"]), LEARNED_FROM in each["name"]))
    add_strips(page, shown)
    page.add(
        "configuration",
        "Configuration and versions",
        configuration_section([run.files for run in results.runs]),
    )
    for figure in figures:
        save_pdf(files.figures / f"{figure.stem}.pdf", [figure])
        _save_csv(files.figures / f"{figure.stem}.csv", figure.frame)
    for name, table in tables.items():
        if len(table):
            _save_csv(files.figures / f"{name}.csv", table)
    with write_whole(files.page) as aside:
        aside.write_text(page.html(), "utf-8")


def _page(
    results: Results,
    figures: Sequence[Figure],
    tables: dict[str, pd.DataFrame],
    files: ReportFiles,
) -> Page:
    """The page with its tables and figures."""
    from finetune_lm.analysis.report_page import (
        Page,
        add_figures,
        change_section,
        pairs_section,
        runs_section,
    )

    runs = [run.files for run in results.runs]
    models = ", ".join(dict.fromkeys(run.model_name for run in runs))
    n = len(runs)
    page = Page(f"Report on {models}", f"{n} run{'s' * (n > 1)}, {_how_divided(results, runs)}")
    changes, pairs = tables["in_short"], tables["pairs_in_short"]
    short = change_section(changes, results) if len(changes) else ""
    short += pairs_section(pairs, results) if len(pairs) else ""
    if short:
        page.add("in_short", "In short", short)
    add_figures(page, figures, files.figures.name)
    page.add("runs", "Runs", runs_section(runs))
    return page


def _how_divided(results: Results, runs: Sequence[RunFiles]) -> str:
    names = results.conditions.names
    if names:
        return f"by {', '.join(names)}."
    there = metadata_of(runs)
    hint = f" --by may name some of {', '.join(there)}." if there else ""
    return f"sentences of a data set together.{hint}"


def _strip_title(results: Results, place: int, dataset: tuple[str, str]) -> str:
    title = f"{dataset[1]} ({dataset[0]})"
    return f"{results.runs[place].files.name}: {title}" if len(results.runs) > 1 else title


def _save_csv(path: Path, frame: pd.DataFrame) -> None:
    with write_whole(path) as aside:
        frame.to_csv(aside, index=False, na_rep="NA")
