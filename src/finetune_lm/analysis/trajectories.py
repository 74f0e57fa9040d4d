"""``trajectories.pdf``: how probes and pairs went, which a run leaves without being asked."""

from __future__ import annotations

from pathlib import Path

from finetune_lm.analysis.item_values import Conditions
from finetune_lm.analysis.report_frames import Results, surprisal_frame
from finetune_lm.analysis.run_files import RunFiles
from finetune_lm.analysis.run_groups import grouped
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.ranks import world
from finetune_lm.recording.table_text import TableText

CONDITION = "condition"
TRAJECTORIES = "trajectories.pdf"


def leave_trajectories(directory: Path) -> None:
    """Draw them in a run's output directory. A plot that fails costs a warning, not the run.

    Of several ranks the first does.
    """
    if not world().is_first:
        return
    try:
        save_trajectories(directory, directory / TRAJECTORIES)
    except Exception as error:
        warn(f"the trajectories could not be plotted: {error!r}")


def save_trajectories(directory: Path, path: Path) -> bool:
    """Draw the surprisal of a run's probes over epochs, by condition, and its pairs' accuracy.

    Args:
        directory: The run's output directory.
        path: The PDF file to write.

    Returns:
        Whether there was anything to draw.
    """
    files = RunFiles.read(directory)
    if files.probes is None and not files.pair_summaries:
        return False
    from finetune_lm.analysis.figure_pdf import save_pdf
    from finetune_lm.analysis.pair_figures import pair_figures
    from finetune_lm.analysis.report_figures import surprisal_figure

    tables = [] if files.probes is None else [files.probes]
    columns = [name for table in tables for name in TableText(table).columns]
    by = [CONDITION] if CONDITION in columns else []
    results = _read(files, by, tables)
    try:
        surprisal = surprisal_figure(results, surprisal_frame(results))
    except UserError:  # too many conditions for one figure
        results = _read(files, [], tables)
        surprisal = surprisal_figure(results, surprisal_frame(results))
    figures = [*([surprisal] if surprisal is not None else []), *pair_figures(results)]
    if figures:
        save_pdf(path, figures)
    return bool(figures)


def _read(files: RunFiles, by: list[str], tables: list[Path]) -> Results:
    conditions = Conditions(by)
    run = RunTrajectories(files, conditions, tables=tables)
    return Results([run], grouped([files]), conditions)
