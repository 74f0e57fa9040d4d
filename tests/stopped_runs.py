"""Runs that were stopped by signals at a step, and unbroken ones to compare them with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

import finetune_lm
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from setups import arguments, setup

SHORT = {"epochs": 2, "eval_before_training": False, "max_test_samples": 6}
N_STEPS = 2 * (3 + 2)
N_TEST_BATCHES = 2


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The output directory of an unbroken run of each kind of model, made when first asked for."""
    runs = {}

    def get(kind, **changed):
        key = (kind, json.dumps(changed))
        if key not in runs:
            place = tmp_path_factory.mktemp(kind) / "whole"
            model, data = setup(kind, **{**SHORT, **changed, "output_dir": str(place)})
            runs[key] = finetune_lm.run(*arguments(model, data)).output_dir
        return runs[key]

    return get


@pytest.fixture
def signals(monkeypatch):
    """Sends this process signals while the model is at work: by number of the forward pass."""
    plan, calls = {}, []
    original = Forward.__call__

    def forward(*args, **kwargs):
        calls.append(1)
        for number in plan.get(len(calls), ()):
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)

    def set_plan(new):
        plan.clear()
        plan.update(new)
        calls.clear()
        return calls

    return set_plan


def begin(kind="lm", output_dir="parts", **changed):
    model, data = setup(kind, **{**SHORT, **changed, "output_dir": output_dir})
    return finetune_lm.run(*arguments(model, data))


def stop(signals, step, number=signal.SIGTERM, do=begin, **changed):
    signals({step: [number]})
    with pytest.raises(Interrupted) as caught:
        do(**changed)
    signals({})
    return caught.value


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Runs that were stopped at a step, for all tests that need no more of it."""
    return tmp_path_factory.mktemp("stopped")


@pytest.fixture
def stopped(signals, kept):
    """Puts a run that was stopped at a step where `begin` would leave it."""

    def put(step):
        if not (kept / str(step)).exists():
            stop(signals, step)
            shutil.move("parts", kept / str(step))
        shutil.copytree(kept / str(step), "parts")

    return put


def state():
    return json.loads(Path("parts/run.json").read_text())


def manifests(output_dir="parts"):
    paths = sorted(Path(output_dir, "checkpoints").glob("*/manifest.json"))
    return [json.loads(path.read_text()) for path in paths]
