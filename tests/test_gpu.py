"""Runs on a CUDA GPU: the numbers of a CPU, nothing waited for in an epoch, and going on."""

from __future__ import annotations

import json
import signal
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import finetune_lm
from crashing import difference
from finetune_lm.runs.device import prepare_process
from finetune_lm.training import loop
from helpers import assert_same_numbers
from setups import MEASURES, arguments, setup
from stopped_runs import SHORT, stop

pytest_plugins = ["stopped_runs"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

FILLERS = Path(__file__).parent.parent / "data" / "nonce_verb" / "fillers.txt.gz"
WITHOUT_DROPOUT = {
    "lm": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "mlm": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "seq2seq": {"dropout_rate": 0.0},
}
KL = {
    "loss_classes": {"train": ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"]},
    "loss_classes_kwargs": {"train": {"KLBaselineLoss": {"dataset": str(FILLERS)}}},
}
TRAINING = {
    "losses": KL,
    "measures": {
        "measures": {"train": [f"measures.{name}" for name in ("Entropy", "Rank", "BaselineKL")]}
    },
    "measures of words": {
        "measures": {"train": ["measures.WordBoundary", "measures.Candidates"]},
        "measures_kwargs": MEASURES["measures_kwargs"],
    },
    "schedule, clipping, accumulation": {
        "lr_scheduler": "linear",
        "max_grad_norm": 0.1,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(kind, output_dir, *, use_gpu=True, model_changes=None, **changed):
    model, data = setup(kind, **{**SHORT, **changed, "output_dir": output_dir})
    model["config_kwargs"] = WITHOUT_DROPOUT[kind]
    model["model_pre_train_step_callbacks"] = []
    model["use_gpu"] = use_gpu
    model.update(model_changes or {})
    # Adam's steps are as large for a gradient that is nothing but rounding.
    data["train_optimizer"] = torch.optim.SGD
    data["train_optimizer_kwargs"] = {"lr": 1e-2}
    if "loss_classes" not in changed:
        del data["loss_classes"]
    return finetune_lm.run(*arguments(model, data)).output_dir


def assert_same_tables(one, other, within=1e-4):
    names = sorted(path.name for path in Path(one).glob("*.csv.gz"))
    assert len(names) >= 2
    for name in names:
        tables = [pd.read_csv(Path(place) / name) for place in (one, other)]
        if "token" in tables[0]:
            assert_same_numbers(*[t[_compared(t)] for t in tables], within)


def _compared(table):
    """Without what is no cost of a token: losses and measures, and ranks, which ties change."""
    left_out = ("loss", "Loss", "rank", "correct", "entropy", "kl_", "_of_", "frame")
    return [name for name in table if not any(part in name for part in left_out)]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", WITHOUT_DROPOUT)
def test_the_rows_are_those_of_a_cpu(kind, fast):
    changed = {**KL, **MEASURES} if kind == "lm" else {}
    one = run(kind, "cpu", use_gpu=False, fast=fast, **changed)
    other = run(kind, "gpu", fast=fast, **changed)
    assert_same_tables(one, other)
    peak = json.loads(Path("gpu/run.json").read_text())["peak_memory_mb"]
    assert peak["cuda"] > 0


@pytest.fixture
def waits(monkeypatch):
    """Where in an epoch of training something waits for the GPU, from the second on."""
    original = loop.train_epoch
    met, epochs = [], []

    def train_epoch(*args):
        torch.cuda.set_sync_debug_mode("warn" if epochs else "default")
        epochs.append(1)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                return original(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            met.extend(f"{each.filename}:{each.lineno}" for each in caught)

    monkeypatch.setattr(loop, "train_epoch", train_epoch)
    return met


@pytest.mark.parametrize("more", TRAINING)
@pytest.mark.parametrize("kind", WITHOUT_DROPOUT)
def test_nothing_of_ours_waits_in_an_epoch(kind, more, waits):
    """transformers looks at the mask of a padded batch."""
    if kind == "mlm" and more in ("losses", "measures of words"):
        pytest.skip("not for masked models")
    if kind == "seq2seq" and more == "losses":
        pytest.skip("the KL term's sentences are for causal models")
    run(kind, "out", eval_before_training=True, **TRAINING[more])
    assert [where for where in waits if "masking_utils.py" not in where] == []


@pytest.mark.parametrize("kind", WITHOUT_DROPOUT)
def test_a_run_with_dropout_is_gone_on_with_to_the_byte(kind, signals):
    def begin(output_dir="parts"):
        model, data = setup(kind, **{**SHORT, "output_dir": output_dir})
        model["use_gpu"] = True
        return finetune_lm.run(*arguments(model, data))

    begin("whole")
    stop(signals, 2, signal.SIGTERM, do=begin)
    stop(signals, 3, signal.SIGTERM, do=lambda: finetune_lm.resume("parts"))
    finetune_lm.resume("parts")
    assert difference(Path("whole"), Path("parts")) == []


@pytest.mark.parametrize(("precision", "within"), [("tf32", 0.05), ("bf16", 0.3), ("fp16", 0.1)])
def test_other_precisions(precision, within):
    tables = [
        pd.read_csv(Path(run("lm", name, model_changes={"precision": name})) / "metrics.csv.gz")
        for name in ("fp32", precision)
    ]
    difference = (tables[0]["surprisal"] - tables[1]["surprisal"]).abs()
    assert 0 < difference.max() < within


def test_tf32_is_off_unless_asked_for():
    torch.backends.cuda.matmul.allow_tf32 = True
    prepare_process(1, finetune_lm.ModelArguments("tiny-lm", use_gpu=True))
    assert not torch.backends.cuda.matmul.allow_tf32
