"""PDF files whose pages are not drawn, for tests that look at no page.

To draw its loss curves takes a short run of the tests more than an eighth of its time, and figures
of its trajectories still more. Instead of a drawing each page gets a note that says what would be
drawn, so that the files of two runs are the same only if that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_DRAWN = "FINETUNE_LM_TESTS_DRAW"
"""The environment variable that is 1 where pages are drawn all the same."""


def leave_undrawn() -> None:
    """From now on no page of a PDF file is drawn in this process, unless a test looks at pages."""
    from matplotlib.figure import Figure

    draw = Figure.savefig

    def save(figure: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if os.environ.get(_DRAWN) == "1" or kwargs.get("format") != "pdf":
            draw(figure, file, *args, **kwargs)
        else:
            _save_note(figure, file, kwargs.get("metadata"))

    Figure.savefig = save  # type: ignore[method-assign, assignment]


@contextmanager
def drawing() -> Iterator[None]:
    """Inside pages are drawn, also in processes of commands that begin there."""
    os.environ[_DRAWN] = "1"
    try:
        yield
    finally:
        del os.environ[_DRAWN]


def _save_note(figure: Any, file: Any, metadata: Any) -> None:
    from matplotlib.backends.backend_pdf import PdfPages

    if not isinstance(file, PdfPages):
        with PdfPages(file, metadata=metadata) as pages:
            _save_note(figure, pages, None)
        return
    page = file._ensure_file()
    page.newPage(*figure.get_size_inches())
    page.newTextnote("\n".join(_parts(figure)))


def _parts(figure: Any) -> Iterator[str]:
    """The texts of a figure, and where its lines, points and areas are.

    Ticks are left out: they follow from these, and to make them takes as long as all the rest.
    """
    yield from (text.get_text() for text in figure.texts)
    for legend in figure.legends:
        yield from (text.get_text() for text in legend.get_texts())
    for axes in figure.axes:
        yield f"{axes.get_title()!r} {axes.get_title(loc='left')!r}"
        yield f"{axes.get_xlabel()!r} {axes.get_ylabel()!r} {axes.get_xlim()} {axes.get_ylim()}"
        yield from (text.get_text() for text in axes.texts)
        for line in axes.lines:
            yield f"{line.get_label()}: {line.get_xydata().tolist()}"
        for areas in axes.collections:
            places = [path.vertices.tolist() for path in areas.get_paths()]
            yield f"{areas.get_label()}: {places} at {areas.get_offsets().tolist()}"
        for patch in axes.patches:
            yield f"{patch.get_label()}: {patch.get_path().vertices.tolist()}"
