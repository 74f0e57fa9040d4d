"""The plots of a study: a PDF with a page each, and one HTML file to look at them closely."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from finetune_lm.messages import say, warn
from finetune_lm.whole_files import write_whole

_TARGET = "best validation loss"
_LONGEST_LEGEND = 24


@dataclass(frozen=True)
class _Plot:
    """One plot of Optuna.

    Attributes:
        name: Its function in `optuna.visualization`, without ``plot_``.
        lacks: What a study lacks that cannot be plotted so; None if it can.
        kwargs: What the function is called with beside the study.
    """

    name: str
    lacks: Callable[[Sequence[FrozenTrial]], str | None]
    has_target: bool = True

    def kwargs(self) -> dict[str, Any]:
        """What the function is called with beside the study."""
        return {"target_name": _TARGET} if self.has_target else {}


def save_plots(study: optuna.Study, pdf: Path, html: Path) -> None:
    """Plot a study, as far as it has the data, and say what is missing and why.

    A plot that fails costs a warning, not the others.

    Args:
        study: The study.
        pdf: The file for printing; a page a plot.
        html: The file for a browser. It holds everything that it needs.
    """
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    missing: dict[str, list[str]] = {}
    for plot in PLOTS:
        lacks = plot.lacks(trials)
        if lacks is not None:
            missing.setdefault(lacks, []).append(plot.name)
    for lacks, names in missing.items():
        say(f"{pdf.name} has no {', '.join(names)}: {lacks}.")
    possible = [plot for plot in PLOTS if plot.lacks(trials) is None]
    for save, path in ((_save_pdf, pdf), (_save_html, html)):
        try:
            save(study, possible, path)
        except Exception as error:
            warn(f"{path.name} could not be made: {error!r}")


def _save_pdf(study: optuna.Study, plots: Sequence[_Plot], path: Path) -> None:
    import matplotlib as mpl

    if "matplotlib.pyplot" not in sys.modules:
        mpl.use("Agg")  # needs no display
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_pdf import PdfPages

    # Optuna sets a style, which is of no other plot's business.
    with (
        write_whole(path, shared=True) as aside,
        mpl.rc_context(),
        warnings.catch_warnings(),
        PdfPages(aside, metadata={"CreationDate": None}) as pages,
    ):
        warnings.simplefilter("ignore")  # of axes that show one value
        for plot, draw in _drawers(optuna.visualization.matplotlib, plots):
            others = set(plt.get_fignums())
            try:
                axes = draw(study, **plot.kwargs())
                figure = _figure_of(axes)
                _drop_long_legends(figure)
                figure.set_size_inches(*_size(plot, axes))
                pages.savefig(figure, bbox_inches="tight")
            except Exception as error:
                warn(f"{path.name}: {plot.name} could not be plotted: {error!r}")
            finally:
                for number in set(plt.get_fignums()) - others:
                    plt.close(number)
        if not plots:
            figure = plt.figure()
            figure.text(0.5, 0.5, "The study has no trials to plot.", ha="center")
            pages.savefig(figure)
            plt.close(figure)


def _save_html(study: optuna.Study, plots: Sequence[_Plot], path: Path) -> None:
    parts: list[str] = []
    for plot, draw in _drawers(optuna.visualization, plots):
        try:
            figure = draw(study, **plot.kwargs())
            # The library is put into the file, once, so that it opens without a network.
            parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
        except Exception as error:
            warn(f"{path.name}: {plot.name} could not be plotted: {error!r}")
    title = escape(study.study_name)
    page = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>',
        f'<body style="font-family: sans-serif"><h1>{title}</h1>',
        *parts,
        "</body></html>",
    ]
    with write_whole(path, shared=True) as aside:
        aside.write_text("\n".join(page) + "\n", encoding="utf-8")


def _drawers(module: Any, plots: Sequence[_Plot]) -> Iterator[tuple[_Plot, Callable[..., Any]]]:
    for plot in plots:
        yield plot, getattr(module, f"plot_{plot.name}")


def _figure_of(axes: Any) -> Any:
    """The figure of what a function of `optuna.visualization.matplotlib` returns."""
    import numpy as np

    return np.asarray(axes, dtype=object).flat[0].figure


def _drop_long_legends(figure: Any) -> None:
    """Take away what names each of so many lines that it would be longer than the page."""
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None and len(legend.get_texts()) > _LONGEST_LEGEND:
            legend.remove()


def _size(plot: _Plot, axes: Any) -> tuple[float, float]:
    """Width and height in inches, larger where there are several panels."""
    import numpy as np

    shape = np.asarray(axes, dtype=object).shape
    rows, columns = (shape if len(shape) == 2 else (1, *shape)) if shape else (1, 1)
    return max(9.0, 3.6 * columns), max(6.0, 3.0 * rows)


def _completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _anything(trials: Sequence[FrozenTrial]) -> str | None:
    return None if trials else "there is no trial"


def _reported(trials: Sequence[FrozenTrial]) -> str | None:
    if any(trial.intermediate_values for trial in trials):
        return None
    return "no trial has finished an epoch"


def _one_completed(trials: Sequence[FrozenTrial]) -> str | None:
    return None if _completed(trials) else "no trial has been completed"


def _several_parameters(trials: Sequence[FrozenTrial]) -> str | None:
    completed = _completed(trials)
    if len(completed) < 2:
        return "this needs two trials that have been completed"
    names = {name for trial in completed for name in trial.params}
    varied = [
        name for name in names if len({repr(trial.params.get(name)) for trial in completed}) > 1
    ]
    if len(varied) < 2:
        return "this needs two parameters that differ among the trials"
    return None


PLOTS = (
    _Plot("optimization_history", _one_completed),
    _Plot("intermediate_values", _reported, has_target=False),
    _Plot("param_importances", _several_parameters),
    _Plot("slice", _one_completed),
    _Plot("parallel_coordinate", _one_completed),
    _Plot("contour", _several_parameters),
    _Plot("rank", _one_completed),
    _Plot("edf", _one_completed),
    _Plot("timeline", _anything, has_target=False),
)
"""The plots that the documentation of `optuna.visualization` has for one objective.

Left out is ``terminator_improvement``: it fits a Gaussian process to each beginning of the study,
which takes minutes.
"""
