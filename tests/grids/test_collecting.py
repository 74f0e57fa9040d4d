from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

import finetune_lm
from finetune_lm.cli import main
from finetune_lm.errors import UserError
from finetune_lm.grids import collecting, table_types
from finetune_lm.grids.collecting import collect
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_states import GridRunRecord
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.whole_files import sealed
from grid_files import runs, write_grid


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finish(run: GridRun, name: str, *pieces: pa.Table, about: str = "") -> None:
    """Leave a run that is finished and has a table."""
    run.directory.mkdir(parents=True, exist_ok=True)
    record = {"state": "finished", "data_sha256": {"a": about} if about else {}}
    (run.directory / "run.json").write_text(sealed(record))
    texts = [csv_text(piece, header=number == 0) for number, piece in enumerate(pieces)]
    if name.endswith(".gz"):
        texts = [gzip.compress(text) for text in texts]
    (run.directory / name).write_bytes(b"".join(texts))


TESTS = "m-test_results.csv.gz"


def test_the_tables_of_real_runs_side_by_side(capsys):
    """What is collected is what each run has, with its values before it."""
    write_grid(
        {
            "kind": {"lm": {}, "mlm": {"model_name_or_path": "tiny-mlm"}},
            "train_optimizer_kwargs.lr": ["1e-3", "2e-3"],
            "seed": [1],
        },
        {"data_preprocessing_fn.train": "data_preprocessing.identity", "epochs": 1},
        exclude=[{"kind": "mlm", "train_optimizer_kwargs.lr": "2e-3"}],
        set={
            "train_file": str(Path(__file__).parents[2] / "data/nonce_verb/flomped_active.txt.gz")
        },
    )
    assert main(["grid", "grid.yaml", "run"]) == 1  # a masked model needs masks
    capsys.readouterr()
    assert main(["grid", "grid.yaml", "collect", "--table", "metrics", "all.parquet"]) == 0
    told = capsys.readouterr().err
    assert "rows of 2 of 3 runs are in all.parquet\n" in told
    assert "missing: 1 failed: kind=mlm_lr=1e-3_seed=1" in told
    frame = finetune_lm.load_grid("all.parquet")
    assert list(frame.columns[:4]) == ["run", "kind", "train_optimizer_kwargs.lr", "seed"]
    assert list(frame.columns).count("seed") == 1
    for run in runs()[:2]:
        own = finetune_lm.load_metrics(run.directory)
        mine = frame[frame["run"] == run.name].reset_index(drop=True)
        assert set(mine["train_optimizer_kwargs.lr"]) == {
            float(run.values["train_optimizer_kwargs.lr"])
        }
        assert set(mine["kind"]) == {"lm"}
        pd.testing.assert_frame_equal(mine[own.columns], own)
    # The same again is the same, and CSV says what Parquet says.
    before = Path("all.parquet").read_bytes()
    assert main(["grid", "collect", "grid.yaml", "all.parquet", "--table=metrics"]) == 0
    assert Path("all.parquet").read_bytes() == before
    assert main(["grid", "grid.yaml", "collect", "all.csv.gz", "--table", "metrics"]) == 0
    pd.testing.assert_frame_equal(finetune_lm.load_grid("all.csv.gz"), frame)
    tests = finetune_lm.load_grid("grid.yaml")
    assert set(tests["dataset_type"]) == {"test"}
    assert len(tests) == sum(
        len(finetune_lm.load_metrics(run.directory / "tiny-lm-test_results.csv.gz"))
        for run in runs()[:2]
    )


def test_columns_and_types_of_tables_that_differ():
    write_grid({"seed": "1..3"})
    one, two, three = runs()
    finish(one, TESTS, pa.table({"word": ["a"], "count": [1], "empty": [None], "item": [3]}))
    finish(
        two,
        TESTS,
        pa.table(
            {"word": ["NA"], "entropy": [0.5], "count": [1.5], "item": ["x1"], "flag": [True]}
        ),
    )
    finish(three, TESTS, pa.table({"word": [None], "late": ["05"], "item": [4]}))
    collect(runs(), Path("all.parquet"))
    table = pyarrow.parquet.read_table("all.parquet")
    assert table.to_pydict() == {
        "run": ["seed=1", "seed=2", "seed=3"],
        "seed": [1, 2, 3],
        "word": ["a", "NA", None],
        "late": [None, None, "05"],
        "entropy": [None, 0.5, None],
        "count": [1.0, 1.5, None],
        "empty": [None, None, None],
        "item": ["3", "x1", "4"],
        "flag": [None, True, None],
    }
    assert str(table.schema.field("count").type) == "double"
    collect(runs(), Path("all.csv.gz"))
    text = gzip.decompress(Path("all.csv.gz").read_bytes()).decode()
    assert text.splitlines()[2] == '"seed=2",2,"NA",NA,0.5,1.5,NA,"x1",TRUE'


@pytest.mark.parametrize(
    ("early", "late", "expected"),
    [
        ([1, 2], [0.5, None], [1.0, 2.0, 0.5, None]),
        ([None, None], ["05", "x"], [None, None, "05", "x"]),
        ([None, None], ["05", "06"], [None, None, "05", "06"]),
        ([1, None], ["b", None], ["1", None, "b", None]),
        ([None, None], [True, False], [None, None, True, False]),
        ([1, 0], [True, False], ["1", "0", "TRUE", "FALSE"]),
        (["a\nb", 'c"\n'], ["1", "2,\n"], ["a\nb", 'c"\n', "1", "2,\n"]),
    ],
)
def test_what_the_beginning_of_a_table_does_not_show(monkeypatch, early, late, expected):
    """In another piece of the table, or in another table of what is said to be the same data."""
    monkeypatch.setattr(table_types, "_SNIFFED", 8)
    monkeypatch.setattr(table_types, "_BLOCK", 64)
    monkeypatch.setattr(collecting, "_ROWS_AT_ONCE", 2)
    write_grid({"seed": "1..2"})
    one, two = runs()
    tables = [pa.table({"x": values, "surprisal": [1.0, 2.5]}) for values in (early, late)]
    finish(one, TESTS, *tables)
    finish(two, TESTS, tables[0])
    assert collect(runs(), Path("all.parquet")).n_rows == 6
    found = pyarrow.parquet.read_table("all.parquet").column("x").to_pylist()
    assert found == [*expected, *expected[:2]]
    finish(one, TESTS, tables[0], about="same")
    finish(two, TESTS, tables[1], about="same")
    collect(runs(), Path("all.parquet"))
    found = pyarrow.parquet.read_table("all.parquet").column("x").to_pylist()
    if (
        expected[2] != "05"
    ):  # what looks like numbers, in data that are not what they are said to be
        assert found == expected


def test_a_value_whose_name_a_table_has_for_something_else():
    write_grid(
        {"run": ["r"], "word": ["w1", "w2"], "model": {"small": {}}},
        set={"test_output_file_prefix": "{run}{word}"},
    )
    for run in runs():
        finish(run, TESTS, pa.table({"word": ["the"], "surprisal": [1.0]}))
    collect(runs(), Path("all.parquet"))
    assert pyarrow.parquet.read_table("all.parquet").to_pydict() == {
        "run": [run.name for run in runs()],
        "grid_run": ["r", "r"],
        "grid_word": ["w1", "w2"],
        "model": ["small", "small"],
        "word": ["the", "the"],
        "surprisal": [1.0, 1.0],
    }


def test_kinds_of_tables_and_what_is_missing(capsys):
    write_grid({"seed": "1..4"})
    one, two, three, _ = runs()
    for name in ("m-test_results.csv.gz", "m-test_summary.csv", "probe_results.csv.gz", "x.csv"):
        finish(one, name, pa.table({"name": [name]}))
    finish(two, "probe_results.csv.gz", pa.table({"name": ["two"]}))
    three.directory.mkdir()
    GridRunRecord({}, failed="why not.").write(three.directory)
    for table, n in (("tests", 1), ("summary", 1), ("probes", 2), ("x.csv", 1)):
        assert collect(runs(), Path("all.csv.gz"), table).n_rows == n
    assert main(["grid", "grid.yaml", "collect", "deep/all.parquet"]) == 0
    told = capsys.readouterr().err
    assert "1 rows of 1 of 4 runs are in deep/all.parquet\n" in told
    for line in (
        "missing: 1 without such a table: seed=2\n",
        "missing: 1 failed: seed=3\n",
        "missing: 1 waiting: seed=4\n",
    ):
        assert line in told
    cases: list[tuple[list[str], str]] = [
        (["all.txt"], "a table must be a .parquet or .csv.gz file but got all.txt."),
        (["a.parquet", "--table", "test"], "but got test. Did you mean tests?"),
        (["a.parquet", "--table", "words"], "no run has a table *-test_words.csv.gz"),
        ([], "collect needs the name of a .parquet or .csv.gz file."),
    ]
    for more, said in cases:
        assert main(["grid", "grid.yaml", "collect", *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["grid", "grid.yaml", "run", "a.parquet", "--table", "words"]) == 2
    assert "a.parquet can only be given to collect." in capsys.readouterr().err
    shutil.rmtree("out")
    with pytest.raises(UserError, match="to be collected: 4 waiting"):
        finetune_lm.load_grid("grid.yaml")
    with pytest.raises(UserError, match=r"there is no table gone\.parquet"):
        finetune_lm.load_grid("gone.parquet")


def test_memory_does_not_grow_with_runs(monkeypatch):
    """No more rows wait than are written at once, and one piece of a table."""
    most: list[int] = []
    original = pa.concat_tables

    def concat(tables: Any) -> Any:
        most.append(sum(each.num_rows for each in tables))
        return original(tables)

    monkeypatch.setattr(collecting.pa, "concat_tables", concat)
    monkeypatch.setattr(collecting, "_ROWS_AT_ONCE", 100)
    monkeypatch.setattr(table_types, "_BLOCK", 256)
    write_grid({"seed": "1..30"})
    for run in runs():
        finish(run, TESTS, pa.table({"surprisal": [0.5] * 40}), about="same")
    assert collect(runs(), Path("all.parquet")).n_rows == 1200
    assert max(most) < 200
    assert len(most) > 6


def test_a_damaged_table_is_named():
    write_grid({"seed": [1]})
    [run] = runs()
    finish(run, TESTS, pa.table({"a": [1], "b": [2]}))
    (run.directory / TESTS).write_bytes(gzip.compress(b'"a","b"\n1,2\n1,2,3\n'))
    with pytest.raises(UserError, match=r"m-test_results\.csv\.gz is damaged"):
        collect(runs(), Path("all.parquet"))
    assert not Path("all.parquet").exists()
