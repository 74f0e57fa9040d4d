"""Commands that a signal ends: what they leave and say."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import transformers

import finetune_lm
from commands import Command, run_command
from crashing import difference
from studies import wait_for

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"


def start(tmp_path, epochs, *more, **environment):
    return Command(*short_run(epochs), *more, cwd=tmp_path, environment=environment)


def short_run(epochs):
    return [
        *("--model_name_or_path", "tiny-lm", "--epochs", epochs, "--output_dir", "out"),
        *("--train_file", DATA / "flomped_active.txt.gz", "--max_train_samples", 4, "--seed", 1),
        *("--validation_file", DATA / "flomped_passive.txt.gz", "--max_validation_samples", 4),
    ]


def wait_for_rows(tmp_path, process):
    metrics = tmp_path / "out" / "metrics.csv.gz"
    while not (metrics.exists() and metrics.stat().st_size > 2_000):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def test_a_killed_run_leaves_every_finished_epoch(tmp_path):
    process = start(tmp_path, epochs=100_000)
    wait_for_rows(tmp_path, process)
    process.kill()
    process.communicate()
    metrics = finetune_lm.load_metrics(tmp_path / "out")
    rows = metrics.groupby("epoch").size()
    assert rows.index.tolist() == list(range(len(rows)))
    assert rows.nunique() == 1
    assert metrics.groupby("epoch")["dataset_type"].nunique().eq(2).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_interrupted_run_keeps_the_best_model_and_says_how_to_go_on(tmp_path, number):
    process = start(tmp_path, 100_000, "--checkpoint_every", "0")
    wait_for_rows(tmp_path, process)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number, said[-3000:]
    assert said.splitlines()[-2:] == [
        f"finetune-lm: interrupted by {number.name}. What was measured is kept. To resume:",
        "python -m finetune_lm --resume out",
    ]
    assert "Traceback" not in said
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "interrupted"


def test_what_is_said_is_the_command_that_goes_on(tmp_path):
    more = ("--model_pre_train_step_callbacks", "waiting.WaitForSignal")
    found = {"PYTHONPATH": str(Path(__file__).parent)}
    waits = tmp_path / "waits"
    waits.mkdir()
    process = start(tmp_path, 3, *more, **found, WAIT_AT=f"{waits}:1.0")
    wait_for(waits / "1.0", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143, said[-3000:]
    resumed = run_command(*shlex.split(said.splitlines()[-1])[3:], cwd=tmp_path, environment=found)
    assert resumed.returncode == 0, resumed.stderr
    assert "Resuming the run in out from epoch" in resumed.stderr
    (tmp_path / "out").rename(tmp_path / "parts")
    unbroken = start(tmp_path, 3, *more, **found)
    unbroken.communicate()
    assert difference(tmp_path / "out", tmp_path / "parts") == []
    again = run_command("--resume", "parts", cwd=tmp_path, environment=found)
    assert again.returncode == 0
    assert "there is nothing left to do" in again.stderr


def test_a_second_ctrl_c_ends_the_command_at_once(tmp_path):
    process = start(tmp_path, 100_000, "--checkpoint_every", "1")
    wait_for_rows(tmp_path, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said[-3000:]
    assert "Traceback" not in said
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv.gz")
    assert sorted(metrics["epoch"].unique()) == list(range(metrics["epoch"].max() + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_the_first_step_just_ends_the_command(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune_lm", *map(str, short_run(epochs=2))],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)  # Python is there, torch hardly
    process.send_signal(number)
    _, said = process.communicate()
    # As a shell has it, a process that dies of a signal has 128 and its number too.
    assert process.returncode in (128 + number, -number), said[-3000:]
    assert not (tmp_path / "out" / "metrics.csv.gz").exists()
