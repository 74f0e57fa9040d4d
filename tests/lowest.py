"""Runs of each kind and a study with the lowest versions that pyproject.toml allows.

`make test-lowest` runs this, and nothing else does: the name keeps it out of the suite.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import finetune_lm
from finetune_lm.cli import main

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
FILES = {
    "tiny-lm": ("flomped_active.txt.gz", "flomped_passive.txt.gz"),
    "tiny-mlm": ("flomped_mlm_train.json.gz", "flomped_mlm_validation.json.gz"),
    "tiny-seq2seq": ("flomped_seq2seq_train.json.gz", "flomped_seq2seq_validation.json.gz"),
}
FEW = [
    *("--max_train_samples", "8", "--max_validation_samples", "4", "--max_test_samples", "4"),
    *("--per_device_train_batch_size", "4", "--seed", "3"),
]


def test_the_versions_are_the_lowest():
    script = Path(__file__).parent.parent / "scripts" / "lowest_versions.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    for line in printed.stdout.splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(version(requirement.name)), line


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(model, *more):
    train, validation = (str(DATA / name) for name in FILES[model])
    files = ("--train_file", train, "--validation_file", validation)
    return ["--model_name_or_path", model, *files, *FEW, *more]


@pytest.mark.parametrize("model", FILES)
def test_a_run_of_each_kind(model):
    test = str(DATA / FILES[model][1])
    argv = command(model, "--test_file", test, "--epochs", "2", "--output_dir", "out")
    assert main(argv) == 0
    metrics = finetune_lm.load_metrics("out")
    assert sorted(metrics["epoch"].unique()) == [0, 1]
    assert metrics["surprisal"].notna().sum() > 20
    tests = finetune_lm.load_metrics(f"out/{model}-test_results.csv.gz")
    assert set(tests["dataset_type"]) == {"test"}
    assert json.loads(Path("out/run.json").read_text())["state"] == "finished"
    for name in ("config.txt", "config.yaml", "loss_curves.pdf"):
        assert Path("out", name).stat().st_size > 0
    # What it saved can be loaded, and says the same.
    shutil.copytree("out/model", "saved")
    again = ["--model_name_or_path", "saved", "--tokenizer_name", "out/tokenizer", *FEW]
    assert main([*again, "--test_file", test, "--output_dir", "again"]) == 0
    [path] = Path("again").rglob("*-test_results.csv.gz")
    saved = finetune_lm.load_metrics(path)["surprisal"]
    assert ((saved - tests["surprisal"]).abs().dropna() < 1e-4).all()


def test_a_report():
    given = ["--probe_file", str(DATA / "flomped_test.txt.gz"), "--max_probe_samples", "4"]
    assert main(command("tiny-lm", *given, "--epochs", "2", "--output_dir", "out")) == 0
    assert main(["report", "out", "--by", "sentence_type", "arg_order"]) == 0
    assert {"loss.pdf", "surprisal.csv"} <= {path.name for path in Path("report_figures").iterdir()}


def test_a_run_with_more_to_it_again():
    kl = str(DATA / FILES["tiny-lm"][1])
    losses = [
        *("--loss_classes.train", "loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"),
        *("--loss_classes_kwargs.train.KLBaselineLoss.dataset", kl),
        *("--loss_classes_kwargs.train.KLBaselineLoss.n_examples_per_batch", "2"),
        *("--model_modifier_fns", "model_modifiers.add_new_tokens"),
        *("--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "flomped"),
        *("--lr_scheduler", "linear", "--checkpoint_every", "1"),
    ]
    assert main(command("tiny-lm", *losses, "--epochs", "2", "--output_dir", "a")) == 0
    assert main(["--config", "a/config.yaml", "--output_dir", "b"]) == 0
    tables = [Path(name, "metrics.csv.gz").read_bytes() for name in ("a", "b")]
    assert tables[0] == tables[1]


def test_a_study():
    argv = [
        *("--do_optimize", "--optimize_kwargs.n_trials", "3", "--epochs", "1"),
        *("--params.lr.values", "1e-5", "1e-3", "--params.lr.suggest_kwargs.log", "True"),
        *("--output_dir", "study"),
    ]
    assert main(command("tiny-lm", *argv)) == 0
    assert json.loads(Path("study/run.json").read_text())["state"] == "finished"
    assert list(Path("study").glob("*.csv*"))
    assert list(Path("study").glob("*.html"))
