"""What trackers are told, and that a run does not depend on them."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

import finetune_lm
from crashing import difference
from finetune_lm.cli import main
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from setups import DATA, arguments, setup

pytest.importorskip("tensorboard")

PAIRS = DATA.parent / "pairs" / "agreement.jsonl"
TOKEN = "hf_" + "s3cret" * 6
CHANGED = {
    "probe_file": [str(PAIRS)],
    "max_probe_samples": 6,
    "lr_scheduler": "linear",
    "test_file": None,
    "epochs": 3,
    "probe_every": 2,
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def do(output_dir, **changed):
    model, data = setup("lm", **{**CHANGED, **changed}, output_dir=str(output_dir))
    return finetune_lm.run(*arguments({**model, "token": TOKEN}, data))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that tells TensorBoard."""
    return do(tmp_path_factory.mktemp("told") / "run", log_with=["tensorboard"])


def scalars(directory):
    """What TensorBoard shows of a run: by name, values by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(directory / "tensorboard"))
    shown.Reload()
    return {
        name: {event.step: event.value for event in shown.Scalars(name)}
        for name in shown.Tags()["scalars"]
    }


def test_numbers_are_those_of_the_tables(told):
    shown = scalars(told.output_dir)
    summary = told.probe_summary
    for number in ("accuracy", "mean_difference"):
        values = dict(zip(summary["epoch"] + 1, summary[number], strict=True))
        assert values.keys() == {0, 2}
        assert shown.pop(f"agreement/subject_verb_agreement/{number}") == pytest.approx(values)
    of_validation = told.metrics[told.metrics["dataset_type"] == "validation"]
    means = of_validation.groupby("epoch")["surprisal"].mean() * np.log(2)
    expected = {epoch + 1: value for epoch, value in means.items()}
    assert expected.keys() == {0, 1, 2, 3}
    assert shown["validation/loss"] == pytest.approx(expected, abs=1e-4)
    assert shown.pop("validation/OutputsDefaultLoss") == shown.pop("validation/loss")
    of_training = told.metrics[told.metrics["dataset_type"] == "train"]
    last = of_training.groupby("epoch")["lr"].last()
    assert shown.pop("lr") == pytest.approx({epoch + 1: lr for epoch, lr in last.items()})
    losses = of_training.drop_duplicates(["epoch", "batch_number"])
    assert shown.pop("train/loss").keys() == {1, 2, 3}
    noise = shown.pop("train/NoisyLoss")
    assert min(losses["NoisyLoss"]) < noise[1] < max(losses["NoisyLoss"])
    assert not shown


def test_the_configuration_is_told_without_secrets(told):
    [path] = (told.output_dir / "tensorboard").glob("*/hparams.yml")
    config = yaml.safe_load(path.read_text())
    assert config["epochs"] == 3
    assert config["train_optimizer_kwargs.lr"] == 1e-3
    files = [each for each in told.output_dir.rglob("*") if each.is_file()]
    assert not [each for each in files if TOKEN.encode() in each.read_bytes()]


class Drawing(GeneralTracker):
    """Draws from all generators whenever it is told something; keeps what it is told."""

    name, requires_logging_directory = "wandb", False
    made: list = []  # noqa: RUF012

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.given, self.heard, self.config = (args, kwargs), [], None
        self.made.append(self)

    tracker = None

    def draw(self):
        random.random(), np.random.rand(3), torch.rand(3)

    def start(self):
        self.draw()

    def store_init_configuration(self, values):
        self.draw()
        self.config = values

    def log(self, values, step=None, **kwargs):
        self.draw()
        self.heard.append((step, dict(values)))

    def finish(self):
        self.draw()
        self.heard.append("finished")


@pytest.fixture
def trackers(monkeypatch):
    """Two trackers of ours in place of others."""
    from finetune_lm.arguments import given_trackers

    monkeypatch.setattr(given_trackers, "find_spec", lambda name: object())
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Drawing)
    monkeypatch.setattr(Drawing, "made", [])


def test_a_run_is_the_same_with_and_without(trackers, told):
    wandb = {"project": "flomp", "entity": "lab"}
    result = do("o", log_with=["wandb"], log_with_kwargs={"wandb": wandb})
    assert {name.split("/")[0] for name in difference(told.output_dir, result.output_dir)} <= {
        "checkpoints", "config.txt", "config.yaml", "run.json", "tensorboard", "trajectories.pdf",
    }  # fmt: skip
    [tracker] = Drawing.made
    assert tracker.given == (("flomp",), {"entity": "lab", "name": "o"})
    assert [each[0] for each in tracker.heard[:-1]] == [0, 0, 1, 2, 3]
    assert tracker.heard[-1] == "finished"
    assert tracker.config["model_name_or_path"] == "tiny-lm"


@pytest.mark.parametrize("where", ["start", "store_init_configuration", "log", "finish"])
def test_one_that_fails_ends_nothing(trackers, monkeypatch, where, capsys):
    class Failing(Drawing):
        made = []  # noqa: RUF012

        def fail(self, *args, **kwargs):
            raise SystemExit(f"no {TOKEN}") if where == "log" else RuntimeError("no network")

    setattr(Failing, where, Failing.fail)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "trackio", Failing)
    model, data = setup("lm", **CHANGED, output_dir="o", log_with=["trackio", "wandb"])
    finetune_lm.run(*arguments({**model, "token": TOKEN}, {**data, "epochs": 1}))
    shown = capsys.readouterr().err
    assert shown.count("trackio failed and gets no more data; the run continues.") == 1
    assert TOKEN not in shown
    assert json.loads(Path("o/run.json").read_text())["state"] == "finished"
    [other] = Drawing.made
    assert [each[0] for each in other.heard[:-1]] == [0, 0, 1]


@pytest.mark.parametrize("n_calls", [9, 12, 14])
def test_a_run_that_is_resumed_shows_as_one(told, monkeypatch, n_calls):
    """Stopped at some step: in an epoch, in a validation, in a pass over the probes."""
    original, calls = Forward.__call__, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) == n_calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(Interrupted):
        do("parts", log_with=["tensorboard"])
    finetune_lm.resume("parts")
    found, whole = scalars(Path("parts")), scalars(told.output_dir)
    assert found == whole


def test_mistakes_are_told_before_the_run(capsys):
    command = ["--model_name_or_path", "tiny-lm", "--test_file", str(PAIRS)]
    cases = {
        ("--log_with", "tensorbord"): "log_with must be tensorboard, ",
        ("--log_with", "aim"): "aim needs a package that is not installed: pip install aim",
        ("--log_with", "comet_ml"): "pip install comet-ml",
        ("--log_with_kwargs.wandb.project", "x"): "(there are none) but has 'wandb'.",
        (
            "--log_with", "tensorboard", "--log_with_kwargs.tensorboard", "3",
        ): "log_with_kwargs.tensorboard must be a dictionary but got 3.",
    }  # fmt: skip
    for words, said in cases.items():
        assert main([*command, *words]) == 2
        assert said in capsys.readouterr().err
    assert not Path("outputs").exists()
