"""A small model of two modes, and runs of one of them or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import finetune_lm
from families import TEXTS
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from helpers import write_lines
from two_modes_model import save_two_modes

BOTH, LM, MNTP = "lm+mlm", "lm", "mntp"
TASK_OF = {"lm": LM, "mlm": MNTP}
ALL = ("train", "validation", "test", "probe")


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return save_two_modes(tmp_path_factory.mktemp("two_modes"), n_steps=30)


@pytest.fixture
def texts_here(tmp_path, monkeypatch):
    """Files of texts in the directory in which the test runs."""
    monkeypatch.chdir(tmp_path)
    write_lines(Path("teach.txt.gz"), TEXTS[:4])
    write_lines(Path("check.txt.gz"), TEXTS[4:])
    write_lines(Path("test.txt.gz"), TEXTS[1:4])


def do(place: Path, task: str, directory: str, model: dict[str, Any] | None = None, **data: Any):
    model = {"model_task": task, "trust_remote_code": True, **(model or {})}
    data = {"seed": 4, "test_output_file_prefix": "x", "output_dir": directory, **data}
    return finetune_lm.run(ModelArguments(str(place), **model), DataTrainingArguments(**data))


def training(**data: Any) -> dict[str, Any]:
    masked = dict.fromkeys(ALL[:2], mask_random_tokens)
    kl = {"dataset": "test.txt.gz", "data_preprocessing_fn": mask_random_tokens, "scaleby": 0.1}
    return {
        "train_file": "teach.txt.gz",
        "validation_file": "check.txt.gz",
        "test_file": ["test.txt.gz"],
        "probe_file": ["check.txt.gz"],
        "epochs": 3,
        "train_optimizer_kwargs": {"lr": 1e-2},
        "per_device_train_batch_size": 2,
        "eval_before_training": True,
        "loss_classes": {"train": [OutputsDefaultLoss, KLBaselineLoss]},
        "loss_classes_kwargs": {"train": {"KLBaselineLoss": kl}},
        "data_preprocessing_fn": {**masked, **dict.fromkeys(ALL[2:], expand_with_masks)},
        "data_preprocessing_fn_strategy": dict.fromkeys(ALL, "per_batch"),
        **data,
    }


def in_mode(rows: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The rows of one mode as a run of that alone has them."""
    return rows[rows["mode"] == mode].drop(columns="mode").reset_index(drop=True)


def assert_same(rows: pd.DataFrame, alone: pd.DataFrame) -> None:
    """See that rows are the same, of which one table may have more columns of missing values."""
    assert len(rows)
    pd.testing.assert_frame_equal(rows[list(alone.columns)], alone, check_dtype=False)
    assert rows.drop(columns=list(alone.columns)).isna().all(axis=None)
