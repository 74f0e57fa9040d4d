"""What trials come out as, when there are enough of them, and what stops them."""

from __future__ import annotations

import json
import signal

import optuna
import pytest
import torch
from optuna.trial import TrialState

import finetune_lm
import studies
from finetune_lm import ModelArguments
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.cli import main
from finetune_lm.errors import TrialsFailedError
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.study import trials
from finetune_lm.study.parameters import with_values
from finetune_lm.study.results import load_results
from finetune_lm.study.workers import queue_again
from studies import Interrupt, ListLoss, data_args, run_study, study_args, trials_of

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def reasons(result):
    return [trial.user_attrs.get("reason") for trial in trials_of(result)]


def test_lists_per_data_set(model, tmp_path):
    losses = {"train": [ListLoss], "validation": [OutputsDefaultLoss]}
    kwargs = {"train": {"ListLoss": {"dataset": ["a", "b"], "scaleby": [1.0, 1.0], "n": [1, 1]}}}
    params = {
        "train_ListLoss_scaleby": {"values": [0.5, 2]},
        "train_ListLoss_n": {"values": [5, 20]},
    }
    args = data_args(tmp_path, loss_classes=losses, loss_classes_kwargs=kwargs)
    result = run_study(model, args, study_args(3, params={"lr": DELETE_FIELD, **params}))
    tried = [
        (
            [trial.params["train_ListLoss_scaleby_0"], trial.params["train_ListLoss_scaleby_1"]],
            [trial.params["train_ListLoss_n_0"], trial.params["train_ListLoss_n_1"]],
        )
        for trial in trials_of(result)
    ]
    # The first is made before there are trials, to find mistakes.
    assert ListLoss.given[0] == ([1.0, 1.0], [1, 1])
    assert ListLoss.given[1:] == tried
    assert all(first != second for (first, second), _ in tried)
    assert all(isinstance(n, int) for _, (n, m) in tried for n in (n, m))
    assert {"train_ListLoss_scaleby_0", "train_ListLoss_n_1"} <= set(result.trials.columns)


def test_classes_and_kwargs_are_tried(model, tmp_path):
    params = {
        "train_optimizer": {"values": [torch.optim.SGD, torch.optim.AdamW]},
        "patience": {"values": [None, 1]},
        "shuffle_train": {"values": [True, False]},
        "per_device_train_batch_size": {"values": [1, 2, 5], "type": "categorical"},
    }
    result = run_study(model, data_args(tmp_path), study_args(6, params=params))
    assert [t.state.name for t in trials_of(result)] == ["COMPLETE"] * 6
    assert {t.params["train_optimizer"] for t in trials_of(result)} == {
        *("torch.optim.SGD", "torch.optim.AdamW"),
    }
    assert result.best_params["train_optimizer"] in (torch.optim.SGD, torch.optim.AdamW)
    assert isinstance(result.best_args.train_optimizer, type)


class FailsAbove(OutputsDefaultLoss):
    """A loss that goes wrong where it is told to."""

    def __init__(self, model, tokenizer, how="not", limit=0):
        super().__init__(model, tokenizer)
        self.how = how

    def __call__(self, outputs, labels):
        loss = super().__call__(outputs, labels)
        if self.how == "nan":
            return loss * float("nan")
        if self.how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        if self.how == "error":
            raise ZeroDivisionError("division by zero")
        return loss


def failing(tmp_path, *choices, n_trials=None, model=None, **kwargs):
    """A study whose trials go through some ways to fail, in their order."""
    args = data_args(tmp_path, loss_classes={"train": [FailsAbove]})
    params = {
        "lr": DELETE_FIELD,
        "train_FailsAbove_how": {"values": ["not", "nan", "memory", "error"]},
    }
    study = study_args(
        n_trials or len(choices),
        params=params,
        study_kwargs={"sampler": _InOrder(choices), "sampler_kwargs": DELETE_FIELD},
        **kwargs,
    )
    return args, study


class _InOrder(optuna.samplers.RandomSampler):
    def __init__(self, choices):
        super().__init__(0)
        self._choices = choices

    def sample_independent(self, study, trial, name, distribution):
        return self._choices[trial.number]


def test_a_trial_that_goes_wrong_is_recorded_and_the_study_goes_on(model, tmp_path, capsys):
    args, study = failing(tmp_path, "nan", "memory", "not", "error", "not")
    result = run_study(model, args, study)
    assert [t.state.name for t in trials_of(result)] == [
        *("FAIL", "FAIL", "COMPLETE", "FAIL", "COMPLETE"),
    ]
    nan, memory, _, error, _ = reasons(result)
    assert nan.startswith("losses must be finite but in epoch 0, train batch 0, came loss nan")
    assert memory.startswith(
        "memory ran out in epoch 0, train batch 0 while FailsAbove was computed"
    )
    assert error == "loss FailsAbove raised ZeroDivisionError: division by zero"
    assert result.trials["reason"].fillna("").tolist() == [nan, memory, "", error, ""]
    said = capsys.readouterr().err
    assert "trial 3: failed (train_FailsAbove_how error; 0 epochs, " in said
    assert "Traceback" not in said
    # The trials after one that failed are as if it had not been.
    args, study = failing(tmp_path, "not")
    args = with_values(args, {("output_dir",): str(tmp_path / "alone")})
    alone = run_study(model, args, study)
    values = [t.value for t in trials_of(result) if t.value is not None]
    assert values == [trials_of(alone)[0].value] * 2


def test_three_failures_in_a_row_stop_a_study(model, tmp_path):
    args, study = failing(tmp_path, "not", "nan", "not", "nan", "error", "memory", "not")
    with pytest.raises(TrialsFailedError) as caught:
        run_study(model, args, study)
    assert str(caught.value).startswith(
        "3 trials in a row failed, so the study was stopped; the last because of: "
        "memory ran out in epoch 0, train batch 0 while FailsAbove was computed"
    )
    table = load_results(tmp_path / "out" / "optimization_results.csv.gz")
    assert table["state"].tolist() == [
        *("COMPLETE", "FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL"),
    ]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["state"] == "failed"
    assert record["trials"] == {"COMPLETE": 2, "FAIL": 4}


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["error"], "the only trial of the study failed; the last because of: loss FailsAbove rai"),
        (["error", "nan"], "all 2 trials of the study failed; the last because of: losses must be"),
    ],
)
def test_a_study_all_of_whose_trials_failed_is_an_error(model, tmp_path, choices, told):
    with pytest.raises(TrialsFailedError) as caught:
        run_study(model, *failing(tmp_path, *choices))
    assert str(caught.value).startswith(told)
    assert caught.value.exit_status == 1
    table = load_results(tmp_path / "out" / "optimization_results.csv.gz")
    assert table["state"].tolist() == ["FAIL"] * len(choices)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"


def test_the_exit_status_of_a_study_without_a_trial_that_went_well(monkeypatch, capsys):
    def fail(*args):
        raise TrialsFailedError("all of them")

    monkeypatch.setattr("finetune_lm.experiment.run", fail)
    assert main(["--model_name_or_path", "tiny-lm", "--test_file", "x.txt"]) == 1
    assert capsys.readouterr().err == "finetune-lm: error: all of them\n"


class PruneSecond(optuna.pruners.BasePruner):
    """Ends trials after their second epoch, but not the first trial."""

    def prune(self, study, trial):
        return trial.number > 0 and trial.last_step == 1


@pytest.mark.parametrize("sampler", ["GPSampler", "TPESampler"])
def test_what_a_pruned_trial_comes_out_as(model, tmp_path, sampler):
    kwargs = {"sampler": getattr(optuna.samplers, sampler), "pruner": PruneSecond()}
    result = run_study(model, data_args(tmp_path, epochs=4), study_args(3, study_kwargs=kwargs))
    whole, *pruned = trials_of(result)
    assert (whole.state, whole.user_attrs["pruned"]) == (TrialState.COMPLETE, False)
    assert len(whole.intermediate_values) == 4
    for trial in pruned:
        assert trial.user_attrs["pruned"] is True
        assert list(trial.intermediate_values) == [0, 1]
        assert trial.user_attrs["n_epochs"] == 2
        if sampler == "GPSampler":  # learns from completed trials alone
            assert trial.state == TrialState.COMPLETE
            assert trial.value == min(trial.intermediate_values.values())
        else:
            assert trial.state == TrialState.PRUNED
    assert result.trials["pruned"].tolist() == [False, True, True]


def test_a_trial_is_not_pruned_when_it_is_over_anyway(model, tmp_path):
    kwargs = {"sampler": optuna.samplers.TPESampler, "pruner": PruneSecond()}
    result = run_study(model, data_args(tmp_path, epochs=2), study_args(2, study_kwargs=kwargs))
    assert [t.state.name for t in trials_of(result)] == ["COMPLETE"] * 2


class PruneAll(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


def test_a_study_all_of_whose_trials_are_pruned_is_kept(model, tmp_path, capsys, plots):
    kwargs = {"sampler": optuna.samplers.TPESampler, "pruner": PruneAll()}
    result = run_study(
        model,
        data_args(tmp_path),
        study_args(2, study_kwargs=kwargs, keep_best_trial=True),
    )
    assert (result.best_loss, result.best_number, result.best_args) == (None, None, None)
    assert result.trials["state"].tolist() == ["PRUNED", "PRUNED"]
    assert result.trials["value"].notna().all()
    assert (result.output_dir / "optimization_plots.pdf").exists()
    said = capsys.readouterr().err
    assert "the study has no best trial yet" in said
    assert "optimization_plots.pdf has no optimization_history" in said


def test_max_trials_limits_the_whole_study(model, tmp_path, capsys):
    args = data_args(tmp_path)
    kwargs = {"load_if_exists": True}
    run_study(model, args, study_args(2, study_kwargs=kwargs, max_trials=3))
    said = capsys.readouterr().err
    assert "this process has done its 2 trials, and the study has 2 of 3." in said
    result = run_study(model, args, study_args(5, study_kwargs=kwargs, max_trials=3))
    assert len(trials_of(result)) == 3
    # Started again at the limit it says so, and writes what there is.
    (result.output_dir / "optimization_results.csv.gz").unlink()
    capsys.readouterr()
    again = run_study(model, args, study_args(5, study_kwargs=kwargs, max_trials=3))
    assert "the study has its 3 trials already" in capsys.readouterr().err
    assert len(again.trials) == 3
    assert again.best_loss == result.best_loss
    more = run_study(model, args, study_args(5, study_kwargs=kwargs, max_trials=4))
    assert len(more.trials) == 4


def test_without_a_number_of_trials_max_trials_ends_it(model, tmp_path):
    result = run_study(model, data_args(tmp_path), study_args(None, max_trials=3))
    assert len(trials_of(result)) == 3


def test_a_trial_more_than_there_may_be_is_not_run(model, tmp_path, monkeypatch):
    """Two processes may begin the last trial at the same moment."""
    # Each looks whether there are enough before it begins one, and there is a moment in between.
    monkeypatch.setattr(trials.Trials, "are_enough", lambda self: self.n_begun > 2)
    result = run_study(model, data_args(tmp_path), study_args(5, max_trials=2))
    assert [t.state.name for t in trials_of(result)] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert reasons(result)[2] == "the study had all of its trials"
    assert trials_of(result)[2].params == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_queues_the_trial_again_and_writes_what_there_is(
    model, tmp_path, number, monkeypatch
):
    monkeypatch.setattr(Interrupt, "number", number)
    args = data_args(tmp_path)
    callbacks = {"model_pre_train_step_callbacks": [Interrupt]}
    with pytest.raises(KeyboardInterrupt) as caught:
        run_study(model, args, study_args(5), **callbacks)
    assert caught.value.signal_number == number
    out = tmp_path / "out"
    table = load_results(out / "optimization_results.csv.gz")
    assert table["state"].tolist() == ["COMPLETE", "FAIL", "WAITING"]
    assert table["reason"][1] == f"stopped by {number.name}"
    assert table["lr"][1] == table["lr"][2]
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
    result = run_study(
        model, args, study_args(2, study_kwargs={"load_if_exists": True}), **callbacks
    )
    assert result.trials["state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert result.trials["repeats"].dropna().tolist() == [1]
    # What it comes out as is what it would have been.
    tried = with_values(
        args,
        {
            ("train_optimizer_kwargs", "lr"): float(table["lr"][1]),
            ("output_dir",): str(tmp_path / "single"),
        },
    )
    assert result.trials["value"][2] == finetune_lm.run(ModelArguments(model), tried).best_loss


def test_the_exit_status_after_a_signal(model, tmp_path, capsys):
    files = studies.files(tmp_path)
    argv = [
        *("--model_name_or_path", model, "--train_file", files["train_file"]),
        *("--validation_file", files["validation_file"], "--epochs", "1", "--output_dir", "out"),
        *("--model_pre_train_step_callbacks", "studies.Interrupt", "--do_optimize"),
    ]
    assert main(argv) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "finetune-lm: interrupted. Finished trials are kept." in said
    assert "to continue the study, repeat the command with --output_dir out " in said


def test_a_trial_that_another_process_was_given(model, tmp_path, capsys):
    """A machine that slept wakes up in the middle of a trial that is not its own any more."""

    class Asleep:
        slept = False

        def __init__(self, model, tokenizer):
            pass

        def __call__(self, epoch, batch):
            if not Asleep.slept and epoch == 1:
                Asleep.slept = True
                path = str(tmp_path / "out" / "optimization_journal.log")
                backend = optuna.storages.journal.JournalFileBackend(path)
                study = optuna.load_study(
                    study_name=None, storage=optuna.storages.JournalStorage(backend)
                )
                study.tell(0, state=TrialState.FAIL)
                queue_again(study, study.trials[0], counts=True)

    result = run_study(
        model,
        data_args(tmp_path),
        study_args(2),
        model_pre_train_step_callbacks=[Asleep],
    )
    assert "trial 0 was given to another process meanwhile" in capsys.readouterr().err
    assert result.trials["state"].tolist() == ["FAIL", "COMPLETE"]
    assert result.trials["repeats"].dropna().tolist() == [0]


class Count:
    calls = 0

    def __init__(self, start=0):
        type(self).calls = start

    def __call__(self, study, trial):
        type(self).calls += 1
        if type(self).calls >= 12:
            study.stop()


def test_callbacks_of_the_user_and_a_timeout(model, tmp_path):
    kwargs = {"callbacks": [Count], "callbacks_kwargs": {"Count": {"start": 10}}, "timeout": 600}
    result = run_study(model, data_args(tmp_path), study_args(9, optimize_kwargs=kwargs))
    assert len(trials_of(result)) == 2
    assert Count.calls == 12
