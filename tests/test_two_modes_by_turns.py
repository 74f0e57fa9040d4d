"""Trainings in both modes of a model by turns, and the choice of the best epoch by a mode."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from crashing import difference
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.cli import main
from finetune_lm.model_modifiers import AlternateModes, ModelCallback
from finetune_lm.recording.recorder import Recorder
from finetune_lm.runs.interruption import Interrupted, Interruption
from finetune_lm.study.trial_run import TrialRunner
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.loop import train
from two_modes_runs import BOTH, do, training

pytest_plugins = ["two_modes_runs"]
pytestmark = pytest.mark.usefixtures("texts_here")


class Stop(ModelCallback):
    """Asks the run to stop, once, after so many calls."""

    left = math.inf

    def __call__(self, epoch, batch):
        Stop.left -= 1
        if not Stop.left:
            os.kill(os.getpid(), signal.SIGTERM)


STOPPING = {"post_train_batch": [Stop], "post_validation_batch": [Stop]}


@pytest.mark.parametrize(
    ("hook", "every", "modes", "stops"),
    [
        # Between the modes of the first validation and of a later one, and in the training.
        ("pre_train_batch", {"mlm": 2}, ["lm", "mlm", "mlm"] * 2, (1, 3, 5)),
        ("begin_epoch", 1, ["lm", "lm", "mlm", "mlm", "lm", "lm"], (8,)),
    ],
)
def test_modes_that_alternate_and_go_on(place, hook, every, modes, stops):
    data = training(word_tables=True, checkpoint_every=1, test_file=None)
    if hook == "pre_train_batch":
        del data["probe_file"]  # without which no trajectories are drawn
    alternating = {hook: [AlternateModes, *STOPPING.get(hook, [])]}
    model = {
        "model_callbacks": {**STOPPING, **alternating},
        "model_callbacks_kwargs": {hook: {"AlternateModes": {"every": every}}},
    }
    Stop.left = math.inf
    whole = do(place, BOTH, "whole", model, **data)
    rows = whole.metrics
    trained = rows[rows["dataset_type"] == "train"]
    batches = trained[["epoch", "batch_number", "mode"]].drop_duplicates()
    assert batches["mode"].tolist() == modes
    # The loss that was minimised is that of the mode, and so is the KL term's.
    for _, batch in trained.groupby(["epoch", "batch_number"]):
        mean = batch["surprisal"].mean() * math.log(2)
        assert batch["OutputsDefaultLoss"].iloc[0] == pytest.approx(mean, abs=1e-4)
    # Judged by the mean of both.
    judged = rows[(rows["dataset_type"] == "validation") & (rows["epoch"] >= 0)]
    means = judged.groupby(["epoch", "mode"]).apply(
        lambda b: (b["surprisal"] * math.log(2)).mean(), include_groups=False
    )
    assert whole.best_loss == pytest.approx(means.groupby("epoch").mean().min(), abs=1e-4)
    for stop in stops:
        Stop.left = stop
        with pytest.raises(Interrupted):
            do(place, BOTH, f"stopped-{stop}", model, **data)
        assert main(["--resume", f"stopped-{stop}"]) == 0
        assert difference(Path("whole"), Path(f"stopped-{stop}")) == [], stop


def test_a_trial_is_a_run(place):
    data = training(test_file=None, epochs=2, seed=4, eval_before_training=False)
    del data["probe_file"]
    model = {"model_callbacks": {"pre_train_batch": [AlternateModes]}, "select_mode": "mlm"}
    single = do(place, BOTH, "single", model, **data)
    model |= {"model_task": BOTH, "trust_remote_code": True}
    runner = TrialRunner(ModelArguments(str(place), **model), DataTrainingArguments(**data), ["lr"])
    best = []
    for lr in (0.5, 1e-2):
        args = DataTrainingArguments(**{**data, "train_optimizer_kwargs": {"lr": lr}})
        stopping = EarlyStopping.of(args)
        with Interruption() as heard, runner.prepared(args, stopping, Recorder(), heard) as trial:
            train(*trial)
        best.append(stopping.best_loss)
    # Whatever the trial before has done to the weights of either mode.
    assert best[1] == single.best_loss != best[0]
    rows = single.metrics
    judged = rows[(rows["mode"] == "mlm") & (rows["dataset_type"] == "validation")]
    means = judged.groupby("epoch")["surprisal"].mean() * math.log(2)
    assert single.best_loss == pytest.approx(means.min(), abs=1e-4)
