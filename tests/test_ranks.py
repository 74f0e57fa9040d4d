"""Several processes make a run together: it comes out as that of one process does."""

from __future__ import annotations

import pandas as pd
import pytest

from commands import run_command
from launched import run_launched
from setups import DATA

WITHIN = 1e-4
NO_DROPOUT = {
    "lm": ["--config_kwargs", *["resid_pdrop", "0.0", "embd_pdrop", "0.0", "attn_pdrop", "0.0"]],
}


def arguments(kind, n, *more):
    """A run of 20 steps and more, of batches of 8 that n processes share."""
    size = str(8 // n)
    sizes = [(f"--per_device_{part}_batch_size", size) for part in ("train", "validation", "test")]
    model = [f"--config_kwargs.{name}" for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]
    return [
        *("--model_name_or_path", f"tiny-{kind}", "--seed", "1", "--epochs", "4"),
        *("--train_file", f"{DATA}/flomped_active.txt.gz", "--max_train_samples", "43"),
        *("--validation_file", f"{DATA}/flomped_passive.txt.gz", "--max_validation_samples", "21"),
        *("--test_file", f"{DATA}/flomped_test.txt.gz", "--max_test_samples", "37"),
        *("--train_optimizer_kwargs.lr", "1e-3", "--word_tables", "True"),
        *(word for name in model for word in (name, "0.0")),
        *(word for pair in sizes for word in pair),
        *more,
    ]


def assert_same_tables(one, several, tables=("metrics", "tiny-lm-test_results", "words")):
    for name in tables:
        expected, found = (pd.read_csv(each / f"{name}.csv.gz") for each in (one, several))
        assert len(expected) > 100
        numbers = [name for name in expected if expected[name].dtype.kind == "f"]
        pd.testing.assert_frame_equal(
            expected.drop(columns=numbers), found.drop(columns=numbers), check_column_type=False
        )
        assert (expected[numbers].isna() == found[numbers].isna()).all(axis=None)
        difference = (expected[numbers] - found[numbers]).abs().max()
        assert difference.max() <= WITHIN, difference


@pytest.mark.parametrize("n", [2])
def test_two_make_the_rows_of_one(tmp_path, n):
    ranks = run_launched(*arguments("lm", n, "--output_dir", "several"), n=n, cwd=tmp_path)
    assert [each.returncode for each in ranks] == [0] * n, ranks
    assert "Results are in several" in ranks[0].stderr
    assert [each.stdout + each.stderr for each in ranks[1:]] == [""] * (n - 1)
    one = run_command(
        *arguments("lm", 1, "--output_dir", "one"),
        cwd=tmp_path,
        environment={"OMP_NUM_THREADS": "1"},
    )
    assert one.returncode == 0, one.stderr
    assert_same_tables(tmp_path / "one", tmp_path / "several")
