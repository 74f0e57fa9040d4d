"""A report as one HTML file that needs nothing else: no network, no other file.

All that runs have named (models, files, sentences) goes into it escaped, or as data that is made
text only in the browser. A policy in the page's head forbids it any request.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finetune_lm.analysis.figure_parts import Figure
from finetune_lm.analysis.figure_plotly import as_plotly
from finetune_lm.analysis.item_values import MISSING
from finetune_lm.analysis.report_frames import DATASET, SETTING, UNTOUCHED, Results, rows_of
from finetune_lm.analysis.report_tables import ROLES
from finetune_lm.analysis.run_files import RunFiles
from finetune_lm.analysis.run_groups import differences

if TYPE_CHECKING:
    import pandas as pd

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_ASSETS = "report_assets"
_MANY_ROWS = 12


class Page:
    """A page that is put together section by section.

    Args:
        title: What stands above all.
        lead: What stands below that.
    """

    def __init__(self, title: str, lead: str) -> None:
        self._title, self._lead = title, lead
        self._sections: list[tuple[str, str, str]] = []
        self._packed: dict[str, str] = {}

    def add(self, anchor: str, heading: str, body: str) -> None:
        """Add a section, whose body is HTML already."""
        self._sections.append((anchor, heading, body))

    def pack(self, name: str, text: str) -> None:
        """Put a text into the page that its script unpacks."""
        # No time in it, so that equal results leave equal files.
        packed = gzip.compress(text.encode(), 9, mtime=0)
        self._packed[name] = base64.b64encode(packed).decode()

    def html(self) -> str:
        """The whole page."""
        links = "".join(
            f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in self._sections
        )
        sections = "".join(
            f'<section id="{anchor}"><h2>{escape(heading)}</h2>{body}</section>\n'
            for anchor, heading, body in self._sections
        )
        packed = "".join(
            f'<script type="text/plain" id="packed-{name}">{text}</script>\n'
            for name, text in self._packed.items()
        )
        return (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n"
            f"<style>{_asset('report.css')}</style></head>\n<body>\n"
            f'<h1>{escape(self._title)}</h1><p class="lead">{escape(self._lead)}</p>\n'
            f"<nav>{links}</nav>\n"
            '<noscript><p class="note">Figures need JavaScript; their PDFs lie beside this page.'
            '</p></noscript><p id="problem"></p>\n'
            f'{sections}<div id="tip"></div>\n{packed}'
            f"<script>{_asset('report.js')}</script>\n</body></html>\n"
        )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(_ASSETS, name).read_text("utf-8")


def plotly_code() -> str:
    """The code of plotly.js, which comes with plotly."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def add_figures(page: Page, figures: Sequence[Figure], files: str) -> None:
    """Add a section for each figure.

    Args:
        page: The page.
        figures: The figures.
        files: Where, seen from the page, their PDF and CSV files are.
    """
    for figure in figures:
        links = " · ".join(
            f'<a href="{quote(f"{files}/{figure.stem}.{kind}")}">{kind.upper()}</a>'
            for kind in ("pdf", "csv")
        )
        body = (
            f'<div class="figure"><div class="plot" id="plot-{figure.stem}"></div>'
            f'<p class="caption">{escape(figure.caption)}</p>'
            f'<p class="files">{links}</p></div>'
        )
        page.add(figure.stem, figure.title, body)
    page.pack("plotly", plotly_code())
    drawn = {figure.stem: as_plotly(figure) for figure in figures}
    page.pack("figures", _json(drawn))


def add_strips(page: Page, datasets: Sequence[Mapping[str, Any]]) -> None:
    """Add the section about single sentences.

    Args:
        page: The page.
        datasets: What `as_plain` made of each data set of each run, with a ``title``.
    """
    if not datasets:
        return
    shown = "".join(
        f'<option value="{value}">{text}</option>'
        for value, text in (("surprisal", "surprisal"), ("change", "change since the first row"))
    )
    page.add(
        "sentences",
        "Sentences, token by token",
        '<p class="caption">A row for each pass, from the first (above) to the last (below), with '
        "how many epochs were learned; ★ marks the best epoch. A column for each token. Point at a "
        "cell for its numbers.</p>"
        '<div id="strips-controls">'
        '<label>Search<input id="strips-search" type="search" placeholder="a word, or #number">'
        '</label><label>Data<select id="strips-data"></select></label>'
        '<label>Condition<select id="strips-condition"></select></label>'
        f'<label>Show<select id="strips-show">{shown}</select></label></div>'
        '<p class="caption"><span id="strips-low"></span><span class="scale" id="strips-scale">'
        '</span><span id="strips-high"></span></p><p class="caption" id="strips-count"></p>'
        '<div id="strips"></div><button id="strips-more">Show more</button>',
    )
    plain = [{**each, "costs": base64.b64encode(each["costs"]).decode()} for each in datasets]
    page.pack("strips", _json(plain))


def change_section(table: pd.DataFrame, results: Results) -> str:
    """The table of what was learned, what it carried over to and what was forgotten."""
    by = list(results.conditions.names)
    with_settings = len(results.groups) > 1
    with_runs = bool((table["n_runs"] > 1).any())
    header = [
        *(["setting"] if with_settings else []),
        "data",
        *by,
        "sentences",
        *(["runs"] if with_runs else []),
        "before",
        "after",
        "change",
        "95 % interval",
    ]
    numbers = {"sentences", "runs", "before", "after", "change", "95 % interval"}
    rows: list[str] = []
    role = None
    for row in rows_of(table):
        if row["role"] != role:
            role = row["role"]
            rows.append(_heading(ROLES[role], len(header)))
        mark = "" if row["before_is"] == UNTOUCHED else "*"
        cells = [
            *([row[SETTING]] if with_settings else []),
            f"{row[DATASET[1]]} ({row[DATASET[0]]})",
            *("" if row[name] == MISSING else row[name] for name in by),
            row["n_items"],
            *([row["n_runs"]] if with_runs else []),
            f"{row['before']:.2f}{mark}",
            f"{row['after']:.2f}",
            f"{row['change']:+.2f}",
            _interval(row["ci_low"], row["ci_high"], "{:+.2f}"),
        ]
        rows.append(_row(cells, [name in numbers for name in header]))
    note = (
        "* Not measured before the training: this is the first pass after it began. "
        if (table["before_is"] != UNTOUCHED).any()
        else ""
    )
    over = "runs with other seeds" if with_runs else "sentences"
    caption = (
        f"Surprisal in bits a word, before the training and at the best epoch. {note}The interval "
        f"is that of the mean change over {over}."
    )
    return (
        f"<div class='scroll'>{_table(header, rows, numbers)}</div>"
        f'<p class="caption">{escape(caption)}</p>'
    )


def pairs_section(table: pd.DataFrame, results: Results) -> str:
    """The table of accuracies in minimal pairs and of differences."""
    with_settings = len(results.groups) > 1
    # Nothing stands before where models were only tested.
    with_before = bool(table["mean_difference_before"].notna().any())
    header = [
        *(["setting"] if with_settings else []),
        *("phenomenon", "pairs"),
        *(["accuracy before", "after"] if with_before else ["accuracy"]),
        "95 % interval",
        *(["difference before", "after (bits)"] if with_before else ["difference (bits)"]),
    ]
    numbers = set(header) - {"setting", "phenomenon"}
    rows: list[str] = []
    dataset = ""
    for row in rows_of(table):
        if (name := f"{row[DATASET[1]]} ({row[DATASET[0]]})") != dataset:
            dataset = name
            rows.append(_heading(name, len(header)))
        cells = [
            *([row[SETTING]] if with_settings else []),
            row["phenomenon"],
            row["n_pairs"],
            *([_number(row["accuracy_before"], "{:.3f}")] if with_before else []),
            _number(row["accuracy_after"], "{:.3f}"),
            _interval(row["ci_low"], row["ci_high"], "{:.3f}"),
            *([_number(row["mean_difference_before"], "{:+.2f}")] if with_before else []),
            _number(row["mean_difference_after"], "{:+.2f}"),
        ]
        rows.append(_row(cells, [name in numbers for name in header]))
    return (
        f"<h3>Minimal pairs and contrasts</h3>{_folded(_table(header, rows, numbers), len(rows))}"
    )


def runs_section(runs: Sequence[RunFiles]) -> str:
    """What was run, with what and where."""
    facts: dict[str, Callable[[RunFiles], Any]] = {
        "model": lambda run: run.model_name,
        "parameters": lambda run: _fact(run.record, "model", "parameters", "n_params"),
        "seed": lambda run: run.seed,
        "training data": lambda run: run.config.get("train_file"),
        "epochs": lambda run: run.record.get("epochs"),
        "best epoch": lambda run: run.best_epoch,
        "best validation loss": lambda run: run.record.get("best_validation_loss"),
        "state": lambda run: run.record.get("state"),
        "device": lambda run: run.record.get("device"),
        "seconds": lambda run: _fact(run.record, "seconds", "total"),
        "started": lambda run: run.record.get("started"),
        "git commit": lambda run: run.record.get("git_commit"),
    }
    rows = []
    for name, fact in facts.items():
        values = [fact(run) for run in runs]
        if any(value is not None for value in values):
            rows.append(_row([name, *map(_said, values)], [False] * (len(runs) + 1)))
    header = ["", *(run.name for run in runs)]
    return f"<div class='scroll'>{_table(header, rows, set())}</div>"


def configuration_section(runs: Sequence[RunFiles]) -> str:
    """In what runs differ, their versions, and all their arguments."""
    parts = []
    if len(runs) > 1 and (differing := differences(runs)):
        rows = [
            _row([name, *values], [False] * (len(runs) + 1)) for name, values in differing.items()
        ]
        header = ["argument", *(run.name for run in runs)]
        parts.append(
            f"<h3>In what they differ</h3><div class='scroll'>{_table(header, rows, set())}</div>"
        )
    versions = [run.record.get("versions") or {} for run in runs]
    names = dict.fromkeys(name for each in versions for name in each)
    rows = [
        _row([name, *(_said(each.get(name)) for each in versions)], [False] * (len(runs) + 1))
        for name in names
    ]
    header = ["", *(run.name for run in runs)]
    parts.append(f"<h3>Versions</h3><div class='scroll'>{_table(header, rows, set())}</div>")
    parts += [
        f"<details><summary>config.yaml of {escape(run.name)}</summary>"
        f"<pre>{escape(run.config_text)}</pre></details>"
        for run in runs
    ]
    return "".join(parts)


def _table(header: Iterable[str], rows: Sequence[str], numbers: set[str]) -> str:
    cells = "".join(
        f'<th class="number">{escape(name)}</th>' if name in numbers else f"<th>{escape(name)}</th>"
        for name in header
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _heading(text: str, n_columns: int) -> str:
    return f'<tr class="role"><th colspan="{n_columns}">{escape(text)}</th></tr>'


def _row(cells: Sequence[Any], are_numbers: Sequence[bool]) -> str:
    made = "".join(
        f'<td class="number">{escape(str(cell))}</td>'
        if is_number
        else f"<td>{escape(str(cell))}</td>"
        for cell, is_number in zip(cells, are_numbers, strict=True)
    )
    return f"<tr>{made}</tr>"


def _folded(table: str, n_rows: int) -> str:
    """A table, behind a line to click on if it is long."""
    if n_rows <= _MANY_ROWS:
        return f"<div class='scroll'>{table}</div>"
    return (
        f"<details><summary>all {n_rows} rows</summary><div class='scroll'>{table}</div></details>"
    )


def _number(value: Any, form: str) -> str:
    return "" if value is None or value != value else form.format(value)


def _interval(low: Any, high: Any, form: str) -> str:
    if low is None or high is None or low != low or high != high:
        return ""
    return f"{form.format(low)} to {form.format(high)}"


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _fact(record: Mapping[str, Any], key: str, *names: str) -> Any:
    found = record.get(key)
    if isinstance(found, Mapping):
        return next((found[name] for name in names if name in found), None)
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
