"""The lines of docs/reading_tables.md, run as they stand: every reader sees the same cells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pytest

from finetune_lm.recording.tables import TableWriter, load_metrics

PAGE = Path(__file__).parents[2] / "docs" / "reading_tables.md"
BLOCKS = re.findall(
    r"^## (.+?)\n.*?^```(python|r)\n(.*?)^```", PAGE.read_text("utf-8"), re.S | re.M
)

WORDS = [
    *("NA", "None", "null", "NULL", "nan", "NaN", "N/A", "", "TRUE", "true", "1", "-", "#"),
    *('say "so"', '"', "'", "a,b", "a\tb", "x\u2028y", "line\nfeed", "½ 😀", "naïve", "a;b", "\\"),
    *("T", "F", "inf", "0x1", "1e5", "2020-01-01", "a b"),
]
N = 2 * len(WORDS) + 1


def table():
    """Rows as a run has them: two words of each kind, and an end token, which belongs to none."""
    words = [*WORDS, *WORDS[::-1], None]
    numbers = [*range(N - 1), None]
    tokens = [f" {word}" for word in words[:-1]]
    predicted = [*WORDS, *(f"{word} " for word in WORDS), None]
    return pa.table(
        {
            "model_name": pa.array(["tiny-lm"] * N),
            "epoch": pa.array([None, *range(N - 1)]),
            "original_text": pa.array([f"They said {word}." for word in words]),
            "word_num": pa.array(numbers),
            "word": pa.array(words),
            "token": pa.array([*tokens[:-1], "NA", "</s>"]),
            "token_id": pa.array(range(N)),
            "token_is_word": pa.array([None, *[True, False] * (N // 2)]),
            "is_target": pa.array([False] * N),
            "surprisal": pa.array([None, *[0.1, 2e-8, 12.5, 1e22] * N][:N]),
            "predicted_token": pa.array(predicted),
            "predicted_token_id": pa.array(numbers),
            "lr": pa.array([2e-6, None, *[0.001] * (N - 2)]),
            "seed": pa.array([2**32 - 1] * N),
            "note": pa.array([None] * (N - 1) + [" said"]),
        }
    )


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    """The table in the place that the page names, as `load_metrics` reads it."""
    monkeypatch.chdir(tmp_path)
    path = Path("outputs/mine/metrics.csv.gz")
    path.parent.mkdir(parents=True)
    rows = table()
    with TableWriter(path, rows.column_names) as writer:
        for begin in range(0, N, 7):
            writer.write(rows.slice(begin, 7))
            writer.end_piece()
    frame = load_metrics(path)
    # The yardstick itself is what was written.
    assert cells(frame) == {name: rows[name].to_pylist() for name in rows.column_names}
    return cells(frame)


def cells(frame):
    """The values of each column, None where one is missing."""
    return {
        name: [None if pd.isna(value) else value for value in frame[name].tolist()]
        for name in frame.columns
    }


def assert_same(read, metrics):
    """Equal cell by cell; not every reader rounds the last bit of a number as others do."""
    assert list(read) == list(metrics)
    for name, values in metrics.items():
        if name in ("surprisal", "lr"):
            values = [value and pytest.approx(value, rel=1e-15) for value in values]
        assert read[name] == values, name


def blocks(language):
    return {title: text for title, kind, text in BLOCKS if kind == language}


def test_the_page_has_every_reader():
    assert list(blocks("python")) == ["pandas", "polars", "DuckDB"]
    assert list(blocks("r")) == ["R: read.csv", "R: readr", "R: fread"]


@pytest.mark.parametrize("reader", blocks("python"))
def test_readers_for_python(reader, metrics):
    names = {}
    exec(blocks("python")[reader], names)
    read = names["metrics"]
    if reader == "polars":
        read = pd.DataFrame(read.to_dict(as_series=False), dtype=object)
    elif reader == "DuckDB":
        read = pd.DataFrame(read.fetchall(), columns=read.columns, dtype=object)
    assert_same(cells(read), metrics)


# Writes each cell, so that no reader is needed to see what R has read.
DUMP = """
for (name in names(metrics)) {
  values <- metrics[[name]]
  text <- if (is.double(values)) sprintf("%.17g", values) else enc2utf8(as.character(values))
  cell <- function(i) if (is.na(values[i])) "missing" else paste0("=", URLencode(text[i], TRUE))
  cat(class(values)[1], vapply(seq_along(values), cell, ""), sep = "\\t")
  cat("\\n")
}
"""
OF_R = {
    "character": str,
    "integer": int,
    "numeric": float,
    "logical": {"TRUE": True, "FALSE": False}.get,
}


@pytest.mark.parametrize("reader", blocks("r"))
def test_readers_for_r(reader, metrics):
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed here")
    text = blocks("r")[reader]
    package = re.search(r"(\w+(?:\.\w+)?)::", text)
    needs = (
        f'if (!requireNamespace("{package[1]}", quietly = TRUE)) quit(status = 77)'
        if package
        else ""
    )
    Path("read.R").write_text(f"{needs}\n{text}\n{DUMP}", encoding="utf-8")
    done = subprocess.run(
        ["Rscript", "--vanilla", "read.R"],
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"R's package {package[1]} is not installed here")
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    read = {
        name: [
            None if value == "missing" else OF_R[kind](unquote(value.removeprefix("=")))
            for value in values
        ]
        for name, (kind, *values) in zip(metrics, lines, strict=True)
    }
    assert_same(read, metrics)
