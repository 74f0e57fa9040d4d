"""Trainings that have pairs as probes, and whose epochs are judged by pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finetune_lm
from finetune_lm.cli import main

pytest_plugins = ["pair_files"]

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def probed(pair_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A training that is judged by pairs, with pairs and a suite among its probes."""
    output = tmp_path_factory.mktemp("probed") / "out"
    values = {
        "max_train_samples": 16,
        "per_device_train_batch_size": 4,
        "train_optimizer_kwargs": {"lr": 3e-3},
        "epochs": 4,
        "seed": 5,
        "train_file": str(ROOT / "data/nonce_verb/flomped_active.txt.gz"),
        "validation_file": str(pair_files / "blimp" / "*.jsonl"),
        "probe_file": [str(ROOT / "data/pairs/agreement.jsonl"), str(pair_files / "own.jsonl")],
        "max_probe_samples": 6,
        "probe_every": 2,
        "select_by": "pair_difference",
        "output_dir": str(output),
        "contrasts": {"c": "plausible - im-plausible"},
    }
    return finetune_lm.run(
        finetune_lm.ModelArguments("tiny-lm"), finetune_lm.DataTrainingArguments(**values)
    )


def test_probes_have_pairs_at_every_pass(probed: Any) -> None:
    tokens, pairs, summary = probed.probe_results, probed.probe_pairs, probed.probe_summary
    passes = tokens[["epoch", "step"]].drop_duplicates().to_numpy().tolist()
    assert passes == [[-1, 0], [1, 8], [3, 16]]
    assert summary[["epoch", "step"]].drop_duplicates().to_numpy().tolist() == passes
    assert summary["comparison"].tolist() == ["pair", "pair", "contrast"] * 3
    for at in passes:
        of_pass = tokens[(tokens["epoch"] == at[0]) & (tokens["dataset_name"] == "own")]
        cost = of_pass.groupby("original_text")["surprisal"].sum()
        found = pairs[(pairs["epoch"] == at[0]) & (pairs["comparison_name"] == "c")]
        expected = [
            cost["The man drank."] - cost["The water drank."],
            cost["A man ate."] - cost["A cake ate."],
        ]
        assert found["difference"].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_command_makes_those_of_probes_again(probed: Any) -> None:
    names = ("probe_pairs.csv.gz", "probe_summary.csv")
    before = [(probed.output_dir / name).read_bytes() for name in names]
    for name in names:
        (probed.output_dir / name).unlink()
    assert main(["pairs", str(probed.output_dir)]) == 0
    assert [(probed.output_dir / name).read_bytes() for name in names] == before


def test_epochs_are_judged_by_pairs(probed: Any) -> None:
    found = finetune_lm.pairs(probed.metrics[probed.metrics["dataset_type"] == "validation"])
    mean = found.pairs.groupby("epoch")["difference"].mean()
    assert probed.best_epoch == mean.idxmax()
    record = json.loads((probed.output_dir / "run.json").read_text())
    assert record["best_pair_difference"] == pytest.approx(mean.max(), abs=1e-5)
    # The loss of that epoch is told all the same.
    of_best = probed.metrics[
        (probed.metrics["dataset_type"] == "validation")
        & (probed.metrics["epoch"] == probed.best_epoch)
    ]
    assert probed.best_loss == pytest.approx(of_best["surprisal"].mean() * np.log(2), abs=1e-4)
    assert probed.best_loss == record["best_validation_loss"]


def test_a_study_judges_epochs_by_pairs_too(pair_files: Path, tmp_path: Path) -> None:
    words = [
        *("--model_name_or_path", "tiny-lm", "--do_optimize", "--optimize_kwargs.n_trials", "1"),
        *("--train_file", ROOT / "data/nonce_verb/flomped_active.txt.gz"),
        *("--max_train_samples", "8", "--validation_file", pair_files / "blimp" / "order.jsonl"),
        *("--epochs", "3", "--params.lr.values", "1e-6", "2e-6", "--select_by", "pair_accuracy"),
        *("--study_kwargs.sampler", "optuna.samplers.RandomSampler", "--seed", "1"),
        *("--study_kwargs.sampler_kwargs", "{}", "--output_dir", tmp_path / "out"),
        *("--patience", "1", "--min_epochs", "2"),
    ]
    assert main([str(word) for word in words]) == 0
    results = finetune_lm.load_metrics(tmp_path / "out" / "optimization_results.csv.gz")
    # Accuracy does not change in so little time, so the first epoch is the best.
    assert results["best_epoch"].tolist() == [0]


def test_to_judge_by_pairs_there_must_be_some(
    pair_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("--model_name_or_path", "no/such-model", "--output_dir", tmp_path / "out"),
        *("--train_file", pair_files / "own.jsonl", "--select_by", "pair_accuracy"),
        *("--validation_file", ROOT / "data/nonce_verb/flomped_passive.txt.gz"),
    ]
    for more in ((), ("--do_optimize",)):
        assert main([str(word) for word in (*words, *more)]) == 2
        assert "select_by pair_accuracy needs validation data" in capsys.readouterr().err
