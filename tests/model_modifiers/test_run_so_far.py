"""Callbacks that ask for ``run``: what they see in runs and in trials, and with a state."""

from __future__ import annotations

import os
import signal

import optuna
import pandas as pd
import pytest

import finetune_lm
from finetune_lm import ModelArguments, OptimizationArguments, UserError
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.model_modifiers import ModelCallback
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from setups import arguments, setup

made: list = []
"""The callbacks that a test has made."""


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.clear()


class Sees(ModelCallback):
    """Keeps all that it sees, also over an interruption."""

    def __init__(self, model, tokenizer, run, at):
        super().__init__(model, tokenizer)
        assert run.model is model
        assert run.tokenizer is tokenizer
        self.run, self.at, self.seen, self.rows = run, at, [], []
        made.append(self)

    def __call__(self, epoch, batch):
        run = self.run
        means = {name: dict(each) for name, each in run.means.items()}
        self.seen.append((self.at, epoch, batch, run.step, run.losses, run.lr, means))
        self.rows.append(run.rows)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])


ALL = {
    "model_callbacks": {hook: [Sees] for hook in HOOKS},
    "model_callbacks_kwargs": {hook: {"Sees": {"at": hook}} for hook in HOOKS},
}


def of_run(output_dir="out", **changed):
    changed = {"epochs": 2, "eval_before_training": False, **changed}
    model, data = setup("lm", output_dir=output_dir, **changed)
    return arguments({**model, **ALL}, data)


def seen(at):
    [callback] = [each for each in made if each.at == at]
    return callback


def test_what_a_callback_sees_of_a_run():
    # 12 texts in batches of 4, two of which make an update: at batches 1 and 2.
    result = finetune_lm.run(*of_run(gradient_accumulation_steps=2))
    metrics, losses = result.metrics, ["loss", "NoisyLoss"]
    train = metrics[metrics["dataset_type"] == "train"]
    for at, steps in (
        ("pre_train_step", {1: 0, 2: 1}),
        ("post_train_step", {1: 1, 2: 2}),
        ("post_train_batch", {0: 0, 1: 1, 2: 1}),
    ):
        points = seen(at).seen
        expected = [
            (epoch, batch, 2 * epoch + step) for epoch in range(2) for batch, step in steps.items()
        ]
        assert [point[1:4] for point in points] == expected
        for (_, epoch, batch, _, found, lr, _), rows in zip(points, seen(at).rows, strict=True):
            table = train[(train["epoch"] == epoch) & (train["batch_number"] == batch)]
            assert lr == 1e-3
            assert [found[name] for name in losses] == pytest.approx(table[losses].iloc[0].tolist())
            assert rows.columns.tolist() == metrics.columns.tolist()
            assert rows["token"].tolist() == table["token"].tolist()
            assert rows["surprisal"].tolist() == pytest.approx(table["surprisal"].tolist())
    # Before a batch, and outside of one, there is none to tell of.
    for at in ("pre_train_batch", "pre_validation_batch", "begin_epoch", "end_epoch", "pre_test"):
        assert all(point[4:6] == (None, None) for point in seen(at).seen)
        assert seen(at).rows == [None] * len(seen(at).rows)
    validated = seen("post_validation_batch")
    assert [point[1:4] for point in validated.seen] == [(0, 0, 2), (0, 1, 2), (1, 0, 4), (1, 1, 4)]
    assert all(point[4].keys() == {"loss", "OutputsDefaultLoss"} for point in validated.seen)
    assert all(point[5] is None for point in validated.seen)
    assert len(pd.concat(validated.rows)) == len(metrics) - len(train)
    # Means: none at first, then of the training, then of both, which stay.
    assert [point[6] for point in seen("pre_training").seen] == [{}]
    assert [point[6].keys() for point in seen("pre_validation").seen] == [
        {"train"},
        {"train", "validation"},
    ]
    ends = [point[6]["validation"]["loss"] for point in seen("end_epoch").seen]
    assert min(ends) == result.best_loss
    assert seen("post_training").seen[0][6] == seen("end_epoch").seen[1][6]
    tested = seen("post_test_batch")
    assert [point[3:5] for point in tested.seen] == [(4, None)] * len(tested.seen)
    table = result.test_results
    assert pd.concat(tested.rows)["token"].tolist() == table["token"].tolist()


def test_a_callback_with_a_state_in_a_run_that_is_stopped_or_dies(monkeypatch):
    """Stopped in training or in validation, or ended at once, it sees what it sees in one go."""
    finetune_lm.run(*of_run("whole", checkpoint_every=1))
    whole = {each.at: each.seen for each in made}
    for step, stop in ((2, _stop), (9, _stop), (7, _die)):
        made.clear()
        args = of_run(f"parts-{step}", checkpoint_every=1)
        with monkeypatch.context() as patched:
            _at_forward_pass(step, stop, patched)
            with pytest.raises((Interrupted, _Death)):
                finetune_lm.run(*args)
        made.clear()
        finetune_lm.resume(args[1].output_dir, *args)
        assert {each.at: each.seen for each in made} == whole


class _Death(BaseException):
    """Stands for a death of the process, after which nothing is saved."""

    at_once = True


def _stop():
    os.kill(os.getpid(), signal.SIGTERM)


def _die():
    raise _Death


def _at_forward_pass(step, stop, monkeypatch):
    original, calls = Forward.__call__, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            stop()
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)


def study_of(output_dir, n_trials=2):
    model, data = of_run(output_dir, test_file=None)
    study = OptimizationArguments(
        do_optimize=True,
        study_kwargs={
            "sampler": optuna.samplers.RandomSampler,
            "pruner": optuna.pruners.NopPruner,
            "study_name": "s",
            "load_if_exists": True,
        },
        optimize_kwargs={"n_trials": n_trials},
        params={"lr": {"values": [1e-4, 1e-2], "suggest_kwargs": {"log": True}}},
    )
    return model, data, study


def trials():
    """What each trial saw, by point. The first callbacks are those that a study tries out."""
    n = len([hook for hook in HOOKS.values() if not hook.is_of_testing])
    groups = [made[i : i + n] for i in range(0, len(made), n)][1:]
    return [{each.at: each.seen for each in group} for group in groups]


def test_a_callback_with_a_state_in_trials(monkeypatch):
    """Each trial begins with a new one, and sees what a single run sees."""
    monkeypatch.setattr("finetune_lm.study.search.save_plots", lambda *_: None)  # they take long
    result = finetune_lm.run(*study_of("study"))
    whole, rates = trials(), result.trials["lr"].tolist()
    assert all(rows is None for each in made for rows in each.rows)
    for tried, lr in zip(whole, rates, strict=True):
        made.clear()
        kwargs = {"lr": lr, "weight_decay": 0.01}
        finetune_lm.run(*of_run(f"single-{lr}", test_file=None, train_optimizer_kwargs=kwargs))
        assert {each.at: each.seen for each in made} == tried
    # One that is stopped in its second epoch is done again, from its beginning.
    made.clear()
    with monkeypatch.context() as patched:
        _at_forward_pass(8, _stop, patched)
        with pytest.raises(Interrupted):
            finetune_lm.run(*study_of("stopped"))
    made.clear()
    result = finetune_lm.run(*study_of("stopped", n_trials=1))
    assert result.trials["state"].tolist() == ["FAIL", "COMPLETE"]
    assert result.trials["lr"].tolist() == [rates[0]] * 2
    assert trials() == whole[:1]


def test_a_run_is_not_given():
    kwargs = {"end_epoch": {"Sees": {"at": "x", "run": 1}}}
    args = ModelArguments(
        "tiny-lm", model_callbacks={"end_epoch": [Sees]}, model_callbacks_kwargs=kwargs
    )
    problem = (
        "model_callbacks_kwargs.end_epoch.Sees.run cannot be given: under that name Sees gets the "
        "state of the run. If it means something else, rename it."
    )
    assert args.problems() == [problem]
    _, data = of_run()
    with pytest.raises(UserError, match=r"Sees\.run cannot be given"):
        finetune_lm.run(args, data)
