from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from finetune_lm import ModelArguments
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.recording.tables import load_metrics
from finetune_lm.series.members import Member
from finetune_lm.series.merged_tables import merge_tables

TEXTS = ['so,\n"m","lm","1M",', '"', "", "\n", "é,", None, "NA"]


def member(name):
    return Member(name, ModelArguments("tiny-lm", model_revision=name))


def put(directory, ending, columns):
    directory.mkdir(exist_ok=True)
    content = csv_text(pa.table(columns))
    is_gzipped = ending.endswith(".gz")
    (directory / f"m-{ending}").write_bytes(gzip.compress(content) if is_gzipped else content)


def read(path):
    """A table as text, of which only an unquoted NA is missing."""
    if path.suffix == ".gz":
        return load_metrics(path)
    zipped = path.with_suffix(".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return load_metrics(zipped)


@pytest.mark.parametrize("ending", ["test_results.csv.gz", "test_summary.csv"])
def test_rows_are_what_they_were_with_three_columns_more(tmp_path, ending):
    n = len(TEXTS)
    columns = {
        "model_name": ['a,"b"'] * n,
        "n_params": ["1M"] * n,
        "text": TEXTS,
        "surprisal": [0.1 + number for number in range(n)],
    }
    names = ["stage1-step5-tokens1B", 'x"y', "chck_2M"]
    for number in range(3):
        put(tmp_path / str(number), ending, {**columns, "place": [number] * n})
    parts = [(member(name), tmp_path / str(number)) for number, name in enumerate(names)]
    [path] = merge_tables(parts, tmp_path)
    assert path == tmp_path / f"m-{ending}"
    merged = read(path)
    assert [*merged.columns] == [
        *("model_name", "n_params", "revision", "step", "tokens_seen", "text", "surprisal"),
        "place",
    ]
    assert merged["revision"].tolist() == [name for name in names for _ in range(n)]
    assert merged["step"].astype(object).where(merged["step"].notna(), None).tolist() == (
        [5] * n + [None] * 2 * n
    )
    assert merged["tokens_seen"].dropna().tolist() == [10**9] * n + [2 * 10**6] * n
    single = read(tmp_path / "0" / f"m-{ending}")
    for number in range(3):
        rows = merged[merged["place"] == number].reset_index(drop=True)
        for name in ("model_name", "n_params", "text", "surprisal"):
            assert rows[name].equals(single[name])
    before = path.read_bytes()
    merge_tables(parts, tmp_path)
    assert path.read_bytes() == before


def test_a_table_without_the_model_has_them_in_front(tmp_path):
    for name in ("step1", "step2"):
        put(tmp_path / name, "test_pairs.csv.gz", {"item": ["a", "b"]})
    [path] = merge_tables([(member(n), tmp_path / n) for n in ("step1", "step2")], tmp_path)
    assert [*load_metrics(path).columns] == ["revision", "step", "tokens_seen", "item"]


def test_other_columns_are_an_error(tmp_path):
    put(tmp_path / "step1", "test_results.csv.gz", {"n_params": ["1M"], "a": [1]})
    put(tmp_path / "step2", "test_results.csv.gz", {"n_params": ["1M"], "b": [1]})
    with pytest.raises(ValueError, match=r"step2/m-test_results\.csv\.gz must have the columns of"):
        merge_tables([(member(n), tmp_path / n) for n in ("step1", "step2")], tmp_path)
    assert not list(tmp_path.glob("*.csv*"))
