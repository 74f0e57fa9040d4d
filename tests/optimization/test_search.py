"""Whole studies in this process, on a small random model."""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

import finetune_lm
import studies
from families import family
from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments, UserError
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.cli import main
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.optimization import search, trials
from finetune_lm.optimization.results import load_results
from finetune_lm.optimization.trial_arguments import with_values
from helpers import save_family
from studies import LR, Interrupt, ListLoss, data_args, run_study, study_args, trials_of


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_family(family("gpt2"), tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if "plots" not in request.fixturenames:
        # They take longer than all the rest, and have tests of their own.
        monkeypatch.setattr(search, "save_plots", lambda *_: None)
    ListLoss.given = []
    Interrupt.n_made = 0


@pytest.fixture
def plots():
    """For a test in which the plots are made."""


def reasons(result):
    return [trial.user_attrs.get("reason") for trial in trials_of(result)]


def test_every_trial_is_the_run_that_it_stands_for(model, tmp_path):
    params = {**LR, "epochs": {"values": [1, 4]}}
    args = data_args(tmp_path)
    result = run_study(model, args, study_args(4, params=params))
    assert [trial.state.name for trial in trials_of(result)] == ["COMPLETE"] * 4
    assert len({trial.params["lr"] for trial in trials_of(result)}) == 4
    for trial in trials_of(result)[:2]:
        place = {
            ("train_optimizer_kwargs", "lr"): trial.params["lr"],
            ("epochs",): trial.params["epochs"],
            ("output_dir",): str(tmp_path / f"run{trial.number}"),
        }
        single = finetune_lm.run(ModelArguments(model), with_values(args, place))
        assert trial.value == single.best_loss
        assert trial.user_attrs["best_epoch"] == single.best_epoch
        assert trial.user_attrs["n_epochs"] == trial.params["epochs"]
        assert min(trial.intermediate_values.values()) == single.best_loss
        assert list(trial.intermediate_values) == list(range(trial.params["epochs"]))


def test_what_a_study_leaves_behind(model, tmp_path, capsys, plots):
    result = run_study(model, data_args(tmp_path), study_args(2))
    assert sorted(path.name for path in result.output_dir.iterdir()) == [
        *("config.txt", "config.yaml", "optimization_journal.log", "optimization_plots.html"),
        *("optimization_plots.pdf", "optimization_results.csv.gz", "run.json"),
    ]
    best = min(trials_of(result), key=lambda trial: trial.value)
    assert (result.best_loss, result.best_number) == (best.value, best.number)
    assert result.best_params == {"lr": best.params["lr"]}
    assert result.best_args.lr == best.params["lr"]
    assert result.best_args.seed == 5
    assert result.metrics is None
    assert result.trials["value"].tolist() == [trial.value for trial in trials_of(result)]
    assert result.trials["number"].tolist() == [0, 1]

    text = (result.output_dir / "config.txt").read_text()
    assert "DataTrainingArguments\n" in text
    assert re.search(r"values: +\[0.0001, 0.01\]", text)
    for trial in trials_of(result):
        assert f"trial {trial.number}, 20" in text
        assert f"  lr: {trial.params['lr']}\n" in text
        assert f"  {trial.value:.4f} (lr " in text
    record = json.loads((result.output_dir / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["study"]["name"] == result.study.study_name
    assert record["study"]["storage"] == "optimization_journal.log"
    assert record["trials"] == {"COMPLETE": 2}
    assert (record["best_trial"], record["best_validation_loss"]) == (best.number, best.value)
    assert record["seed"] == 5

    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("trial ") for line in said) == 2
    assert not any("[I " in line or "[W " in line for line in said)
    assert said[-1].startswith(f"best trial: {best.number}, validation loss {best.value:.4f} (lr ")


def test_the_config_file_does_the_study_again(model, tmp_path):
    # From here on by the command line, where everything has to have a name.
    argv = [
        *("--model_name_or_path", model, "--do_optimize", "--epochs", "2"),
        *("--train_file", studies.files(tmp_path)["train_file"]),
        *("--validation_file", studies.files(tmp_path)["validation_file"]),
        *("--study_kwargs.sampler", "optuna.samplers.RandomSampler"),
        *("--params.train_optimizer.values", "torch.optim.SGD", "torch.optim.AdamW"),
    ]
    assert main([*argv, "--output_dir", "one"]) == 0
    assert main(["--config", "one/config.yaml", "--output_dir", "two"]) == 0
    one, two = (load_results(Path(d, "optimization_results.csv.gz")) for d in ("one", "two"))
    columns = ["study_name", "number", "state", "value", "lr", "train_optimizer", "seed"]
    assert one[columns].equals(two[columns])
    # And goes on with it.
    more = ["--config", "one/config.yaml", "--output_dir", "one", "--study_kwargs.load_if_exists"]
    assert main(more) == 0
    table = load_results(Path("one/optimization_results.csv.gz"))
    assert len(table) == 4
    assert table[columns][:2].equals(one[columns])
    assert set(table["study_name"]) == set(one["study_name"])
    assert len(list(Path("one").glob("config*.txt"))) == 2


def test_a_study_that_is_there_is_not_begun_again(model, tmp_path):
    args = data_args(tmp_path)
    run_study(model, args, study_args(1))
    with pytest.raises(UserError, match=r"already. To go on with it give --study_kwargs.load_if"):
        run_study(model, args, study_args(1))
    result = run_study(model, args, study_args(2, study_kwargs={"load_if_exists": True}))
    assert len(trials_of(result)) == 3
    # Unlike a sampler with a seed and nothing else, it does not begin again where it began.
    assert len({trial.params["lr"] for trial in trials_of(result)}) == 3


def test_other_settings_are_another_study(model, tmp_path):
    args = data_args(tmp_path, output_dir=None)
    kwargs = {"storage": str(tmp_path / "all.log"), "load_if_exists": True}
    names = set()
    for number in range(2):
        tried = with_values(args, {("epochs",): number + 1})
        result = run_study(model, tried, study_args(1, study_kwargs=kwargs))
        assert len(trials_of(result)) == 1
        names.add(result.study.study_name)
    assert len(names) == 2
    assert len(optuna.get_all_study_names(result.study._storage)) == 2
    # By one name they would have become one.
    kwargs["study_name"] = names.pop()
    other = with_values(args, {("epochs",): 3})
    with pytest.raises(UserError, match="was made with another epochs, so its trials cannot"):
        run_study(model, other, study_args(1, study_kwargs=kwargs))


def test_a_named_study_is_found_again_without_a_directory(model, tmp_path):
    args = data_args(tmp_path, output_dir=None)
    kwargs = {"study_name": "mine", "load_if_exists": True}
    for n_trials in (1, 2):
        result = run_study(model, args, study_args(1, study_kwargs=kwargs))
        assert len(trials_of(result)) == n_trials
    assert result.output_dir == Path("outputs/teach", model.replace("/", "-"), "mine")


def test_a_drawn_seed_is_that_of_the_study(model, tmp_path):
    """Trials from two seeds could not be compared."""
    args = data_args(tmp_path, output_dir="out")
    settings = {name: value for name, value in vars(args).items() if name in ("train_file",)}
    settings |= {"validation_file": args.validation_file, "epochs": 1, "output_dir": "out"}
    results = [
        run_study(
            model,
            DataTrainingArguments(**settings),
            study_args(1, study_kwargs={"load_if_exists": True}),
        )
        for _ in range(2)
    ]
    assert results[0].best_args.seed == results[1].best_args.seed
    assert set(results[1].trials["seed"]) == {results[0].best_args.seed}
    records = [json.loads(path.read_text()) for path in Path("out").glob("run*.json")]
    assert {record["seed"] for record in records} == {results[0].best_args.seed}
    explicit = DataTrainingArguments(**settings, seed=(results[0].best_args.seed + 1) % 2**32)
    with pytest.raises(UserError, match=r"was made with another seed \(\d+, not \d+\)"):
        run_study(model, explicit, study_args(1, study_kwargs={"load_if_exists": True}))


def test_a_study_that_another_process_begins_while_this_one_loads(model, tmp_path, monkeypatch):
    args = data_args(tmp_path, seed=DrawnSeed(8))
    kwargs = {"load_if_exists": True}
    first = run_study(model, args, study_args(2, study_kwargs=kwargs))
    # It was not there when this one looked.
    monkeypatch.setattr(search, "find_study", lambda *_, **__: None)
    args = data_args(tmp_path, seed=DrawnSeed(9))
    second = run_study(model, args, study_args(1, study_kwargs=kwargs))
    assert second.trials["seed"].tolist() == [8, 8, 8]
    assert len({trial.params["lr"] for trial in trials_of(second)}) == 3
    last = trials_of(second)[2]
    tried = with_values(
        args,
        {
            ("seed",): 8,
            ("train_optimizer_kwargs", "lr"): last.params["lr"],
            ("output_dir",): str(tmp_path / "single"),
        },
    )
    assert last.value == finetune_lm.run(ModelArguments(model), tried).best_loss
    assert first.best_args.seed == second.best_args.seed == 8


def test_test_files_are_ignored_with_a_word(model, tmp_path, capsys):
    args = data_args(tmp_path, test_file=["there/is/no/such/file.txt"])
    result = run_study(model, args, study_args(1))
    assert "test_file is not used in a study" in capsys.readouterr().err
    assert not list(result.output_dir.glob("*test_results*"))
    assert result.test_results is None


def test_lists_per_data_set(model, tmp_path):
    losses = {"train": [ListLoss], "validation": [OutputsDefaultLoss]}
    kwargs = {"train": {"ListLoss": {"dataset": ["a", "b"], "scaleby": [1.0, 1.0], "n": [1, 1]}}}
    params = {
        "train_ListLoss_scaleby": {"values": [0.5, 2]},
        "train_ListLoss_n": {"values": [5, 20]},
    }
    args = data_args(tmp_path, loss_classes=losses, loss_classes_kwargs=kwargs)
    result = run_study(model, args, study_args(3, params={"lr": _deleted(), **params}))
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


def _deleted():
    from finetune_lm.arguments import DELETE_FIELD

    return DELETE_FIELD


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
        "lr": _deleted(),
        "train_FailsAbove_how": {"values": ["not", "nan", "memory", "error"]},
    }
    study = study_args(
        n_trials or len(choices),
        params=params,
        study_kwargs={"sampler": _InOrder(choices), "sampler_kwargs": _deleted()},
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
    assert memory == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."
    assert error == "ZeroDivisionError: division by zero"
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
    with pytest.raises(UserError) as caught:
        run_study(model, args, study)
    assert str(caught.value) == (
        "3 trials in a row failed, so the study was stopped; the last because of: "
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."
    )
    table = load_results(tmp_path / "out" / "optimization_results.csv.gz")
    assert table["state"].tolist() == [
        *("COMPLETE", "FAIL", "COMPLETE", "FAIL", "FAIL", "FAIL"),
    ]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["state"] == "failed"
    assert record["trials"] == {"COMPLETE": 2, "FAIL": 4}


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
    assert "no trial of the study has been completed" in said
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
    monkeypatch.setattr(trials.Trials, "are_enough", lambda self: False)
    result = run_study(model, data_args(tmp_path), study_args(5, max_trials=2))
    assert [t.state.name for t in trials_of(result)] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert reasons(result)[2] == "the study had all of its trials"
    assert trials_of(result)[2].params == {}


def test_the_best_trial_is_run_again_in_full(model, tmp_path, capsys):
    args = data_args(tmp_path, test_file=["not/there.txt"])
    kwargs = {"load_if_exists": True}
    study = study_args(3, keep_best_trial=True, study_kwargs=kwargs)
    result = run_study(model, args, study)
    best_dir = result.output_dir / "best_trial"
    assert sorted(path.name for path in best_dir.iterdir()) == [
        *("config.txt", "config.yaml", "loss_curves.pdf", "metrics.csv.gz", "model", "run.json"),
        "tokenizer",
    ]
    record = json.loads((best_dir / "run.json").read_text())
    assert record["best_validation_loss"] == result.best_loss
    metrics = finetune_lm.load_metrics(best_dir)
    assert set(metrics["seed"]) == {5}
    saved = best_dir / "model" / "model.safetensors"
    before = saved.stat().st_mtime_ns

    # Gone on with, it is not run again unless another trial is the best now.
    study = study_args(1, keep_best_trial=True, study_kwargs=kwargs)
    capsys.readouterr()
    again = run_study(model, args, study)
    assert saved.stat().st_mtime_ns == before
    others = list(result.output_dir.glob("best_trial_*"))
    if again.best_number == result.best_number:
        assert "the best trial has been run again before" in capsys.readouterr().err
        assert others == []
    else:
        assert [path.name for path in others] == [f"best_trial_{again.best_number}"]


def test_another_best_trial_has_a_directory_of_its_own(model, tmp_path):
    kwargs = {"load_if_exists": True, "sampler_kwargs": _deleted()}
    args = data_args(tmp_path)
    for number, sampler in enumerate((_Fixed([1e-4]), _Fixed([1e-4, 1e-2]))):
        study = study_args(1, keep_best_trial=True, study_kwargs={**kwargs, "sampler": sampler})
        result = run_study(model, args, study)
        assert result.best_number == number
    assert sorted(path.name for path in result.output_dir.glob("best_*")) == [
        *("best_trial", "best_trial_1"),
    ]
    record = json.loads((result.output_dir / "best_trial_1" / "run.json").read_text())
    assert record["best_validation_loss"] == result.best_loss


class _Fixed(optuna.samplers.RandomSampler):
    def __init__(self, values):
        super().__init__(0)
        self._values = values

    def sample_independent(self, study, trial, name, distribution):
        return self._values[trial.number]


def test_the_direction(model, tmp_path, capsys):
    kwargs = {"direction": "maximize"}
    result = run_study(model, data_args(tmp_path), study_args(3, study_kwargs=kwargs))
    assert result.best_loss == max(trial.value for trial in trials_of(result))
    for trial in trials_of(result):
        assert trial.value == min(trial.intermediate_values.values())
    said = capsys.readouterr().err
    assert "direction is maximize: the value of a trial is its lowest validation loss" in said
    assert "_maximize_" in result.study.study_name


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
    assert "the study goes on when the same command is given again, with --output_dir out " in said


def test_a_trial_that_another_process_was_given(model, tmp_path, capsys):
    """A machine that slept wakes up in the middle of a trial that is not its own any more."""

    class Asleep:
        slept = False

        def __init__(self, model, tokenizer):
            pass

        def __call__(self, epoch, batch):
            if not Asleep.slept and epoch == 1:
                Asleep.slept = True
                from finetune_lm.optimization.lost_trials import queue_again

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


def test_nothing_is_written_before_everything_is_loaded(model, tmp_path):
    args = data_args(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        run_study("./no_such_model", args, study_args(1))
    kwargs = {"train": {"ListLoss": {"no_such": 1}}}
    broken = data_args(tmp_path, loss_classes={"train": [ListLoss]}, loss_classes_kwargs=kwargs)
    with pytest.raises(UserError, match="ListLoss must accept"):
        run_study(model, broken, study_args(1))
    assert not (tmp_path / "out").exists()


def test_a_full_disk(model, tmp_path, monkeypatch):
    def full(path, table):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(search, "write_results", full)
    with pytest.raises(UserError, match="cannot be written into: No space left on device"):
        run_study(model, data_args(tmp_path), study_args(1))


def test_a_storage_that_is_lost(model, tmp_path, monkeypatch):
    import sqlalchemy.exc

    def lost(*_, **__):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed"))

    def report(*_, **__):
        for name in ("_write_log", "_sync_with_backend"):
            monkeypatch.setattr(optuna.storages.JournalStorage, name, lost)
        lost()

    monkeypatch.setattr(optuna.Trial, "report", report)
    with pytest.raises(UserError, match=r"was lost: .*server closed\..*load_if_exists"):
        run_study(model, data_args(tmp_path), study_args(1))


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


WRONG = {
    "n_jobs": (
        {"optimize_kwargs": {"n_jobs": 2}},
        "optimize_kwargs.n_jobs must be 1, because the trials of a process share a model, but got "
        "2 (an integer). Start the same command several times instead.",
    ),
    "n_trials": (
        {"optimize_kwargs": {"n_trials": 0}},
        "optimize_kwargs.n_trials must be an integer, at least 1, or None but got 0 (an integer).",
    ),
    "timeout": (
        {"optimize_kwargs": {"timeout": -1}},
        "optimize_kwargs.timeout must be a number of seconds above 0 or None but got -1 (an "
        "integer).",
    ),
    "unknown key": (
        {"optimize_kwargs": {"n_trial": 2}},
        "optimize_kwargs.n_trial does not exist; the keys of optimize_kwargs are n_trials, "
        "timeout, n_jobs, catch, callbacks, callbacks_kwargs, gc_after_trial, show_progress_bar. "
        "Did you mean optimize_kwargs.n_trials?",
    ),
    "unknown key of the study": (
        {"study_kwargs": {"samplr": 2}},
        "study_kwargs.samplr does not exist; the keys of study_kwargs are study_name, sampler, "
        "pruner, storage, sampler_kwargs, pruner_kwargs, storage_kwargs, direction, "
        "load_if_exists. Did you mean study_kwargs.sampler?",
    ),
    "direction": (
        {"study_kwargs": {"direction": "minimise"}},
        "study_kwargs.direction must be minimize or maximize but got 'minimise' (text). Did you "
        "mean minimize?",
    ),
    "directions": (
        {"study_kwargs": {"directions": ["minimize", "maximize"]}},
        "study_kwargs.directions cannot be used: a study has one objective here, the validation "
        "loss. Give study_kwargs.direction.",
    ),
    "load_if_exists": (
        {"study_kwargs": {"load_if_exists": "yes"}},
        "study_kwargs.load_if_exists must be True or False but got 'yes' (text).",
    ),
    "max_trials": ({"max_trials": 0}, "max_trials must be at least 1 but got 0."),
    "no parameters": (
        {"params": {"lr": None}},
        "params must have at least one parameter to search for.",
    ),
    "sampler as text": (
        {"study_kwargs": {"sampler": "TPESampler", "sampler_kwargs": None}},
        "study_kwargs.sampler must be a class like optuna.samplers.TPESampler but got "
        "'TPESampler' (text). Did you mean optuna.samplers.TPESampler?",
    ),
    "a pruner for a sampler": (
        {"study_kwargs": {"sampler": optuna.pruners.NopPruner, "sampler_kwargs": None}},
        "study_kwargs.sampler must be a class like optuna.samplers.TPESampler but got "
        "optuna.pruners.NopPruner (a class).",
    ),
    "sampler_kwargs": (
        {"study_kwargs": {"sampler_kwargs": {"n_startup": 3}}},
        "study_kwargs.sampler_kwargs.n_startup is no argument of RandomSampler, which takes seed. "
        "A default is taken away by __delete_field__.",
    ),
    "a parameter": (
        {"params": {"lrr": {"values": [1, 2]}}},
        "params.lrr is no argument for data and training, and none of the optimizer or of a loss. "
        "Did you mean params.lr?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_told_before_a_model_is_loaded(tmp_path, case):
    kwargs, problem = WRONG[case]
    kwargs = {
        key: {k: _deleted() if v is None else v for k, v in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in kwargs.items()
    }
    with pytest.raises(UserError) as caught:
        run_study("./no_such_model", data_args(tmp_path), study_args(1, **kwargs))
    assert caught.value.problems[0].startswith(problem)
    assert not (tmp_path / "out").exists()


def test_a_study_needs_training_data(tmp_path):
    files = studies.files(tmp_path)
    args = DataTrainingArguments(test_file=[files["train_file"]])
    with pytest.raises(UserError, match="do_optimize needs a train_file and a validation_file"):
        run_study("tiny-lm", args, study_args(1))


def test_defaults_are_those_that_are_documented():
    args = OptimizationArguments()
    args.resolve()
    assert args.do_optimize is False
    assert args.study_kwargs == {
        "study_name": None,
        "sampler": optuna.samplers.GPSampler,
        "sampler_kwargs": {"deterministic_objective": True},
        "pruner": optuna.pruners.PatientPruner,
        "pruner_kwargs": {
            "wrapped_pruner": optuna.pruners.WilcoxonPruner,
            "wrapped_pruner_kwargs": {"p_threshold": 0.1, "n_startup_steps": 100},
            "patience": 30,
            "min_delta": 0.0,
        },
        "direction": "minimize",
    }
    assert args.optimize_kwargs == {
        "n_trials": 2,
        "gc_after_trial": True,
        "show_progress_bar": False,
    }
    assert args.params == {"lr": {"values": [2e-6, 2e-5], "suggest_kwargs": {}}}
    assert (args.max_trials, args.keep_best_trial) == (None, False)


def test_passwords_and_tokens_are_in_no_file(model, tmp_path, monkeypatch):
    from finetune_lm.optimization import plan as plan_module
    from finetune_lm.optimization.storage import storage_place

    def elsewhere(study_kwargs, default):
        place = storage_place({"storage": "sqlite:///s.db"}, default)
        return type(place)(storage_place(study_kwargs, default).shown, place.open, place.is_there)

    monkeypatch.setattr(plan_module, "storage_place", elsewhere)
    storage = "postgresql://me:secret1@host/studies"
    result = run_study(
        model,
        data_args(tmp_path),
        study_args(1, study_kwargs={"storage": storage}),
        token="secret2",
    )
    for path in [*result.output_dir.iterdir(), tmp_path / "s.db"]:
        content = path.read_bytes()
        assert b"secret1" not in content
        assert b"secret2" not in content
    assert "me:***@host" in (result.output_dir / "config.yaml").read_text()


def constraints(trial):
    """For ``constraints_func``: only low learning rates will do."""
    return (trial.params["lr"] - 1e-3,)


def gamma(n):
    """For ``gamma``: how many of n trials are good ones."""
    return max(1, n // 2)


STORAGE = [
    *("--study_kwargs.storage", "optuna.storages.JournalStorage"),
    *("--study_kwargs.storage_kwargs.log_storage", "optuna.storages.journal.JournalFileBackend"),
    *("--study_kwargs.storage_kwargs.log_storage_kwargs.file_path", "./deep.log"),
    *("--study_kwargs.storage_kwargs.log_storage_kwargs.lock_obj",),
    "optuna.storages.journal.JournalFileOpenLock",
    *("--study_kwargs.storage_kwargs.log_storage_kwargs.lock_obj_kwargs.filepath", "./deep.log"),
    *("--study_kwargs.storage_kwargs.log_storage_kwargs.lock_obj_kwargs.grace_period", "20"),
]
SAMPLER_KWARGS = "--study_kwargs.sampler_kwargs"
FORMS = {
    "storage in depth": STORAGE,
    "a URL": ["--study_kwargs.storage", "sqlite:///study.db"],
    "a journal": ["--study_kwargs.storage", "./journals/mine.log"],
    "wrapped pruner": [
        *("--study_kwargs.pruner_kwargs.wrapped_pruner", "optuna.pruners.PercentilePruner"),
        *("--study_kwargs.pruner_kwargs.wrapped_pruner_kwargs.percentile", "30.0"),
        *("--study_kwargs.pruner_kwargs.patience", "1"),
    ],
    "another pruner": ["--study_kwargs.pruner", "optuna.pruners.MedianPruner"],
    "functions for a sampler": [
        *("--study_kwargs.sampler", "optuna.samplers.TPESampler"),
        *(f"{SAMPLER_KWARGS}.gamma", "in_module.gamma"),
        *(f"{SAMPLER_KWARGS}.constraints_func", "in_module.constraints"),
    ],
    "samplers in a sampler": [
        *(f"{SAMPLER_KWARGS}.independent_sampler", "optuna.samplers.QMCSampler"),
        *(f"{SAMPLER_KWARGS}.independent_sampler_kwargs.scramble", "True"),
        *(f"{SAMPLER_KWARGS}.independent_sampler_kwargs.independent_sampler",),
        "optuna.samplers.RandomSampler",
        *(f"{SAMPLER_KWARGS}.deterministic_objective", "__delete_field__"),
        *(f"{SAMPLER_KWARGS}.constraints_func", "in_module.constraints"),
        *(f"{SAMPLER_KWARGS}.n_startup_trials", "1"),
    ],
}


@pytest.mark.parametrize("case", FORMS)
def test_everything_nested_by_the_command_line(model, tmp_path, monkeypatch, case, capsys):
    import inspect

    source = "\n".join(inspect.getsource(function) for function in (gamma, constraints))
    (tmp_path / "in_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "in_module", raising=False)
    made = {}
    original = search.load_study

    def keep(place, name, sampler, pruner):
        made.update(place=place, sampler=sampler.wrapped, pruner=pruner)
        return original(place, name, sampler, pruner)

    monkeypatch.setattr(search, "load_study", keep)
    files = studies.files(tmp_path)
    argv = [
        *("--model_name_or_path", model, "--train_file", files["train_file"]),
        *("--validation_file", files["validation_file"], "--epochs", "2", "--do_optimize"),
        *("--output_dir", "out", "--params.lr.values", "1e-4", "1e-2"),
    ]
    assert main([*argv, *FORMS[case]]) == 0, capsys.readouterr().err
    assert load_results(Path("out/optimization_results.csv.gz"))["state"].tolist() == [
        *("COMPLETE", "COMPLETE"),
    ]
    sampler, pruner = made["sampler"], made["pruner"]
    if case == "storage in depth":
        lock = made["place"].open()._backend._lock
        assert isinstance(lock, optuna.storages.journal.JournalFileOpenLock)
        assert lock.grace_period == 20
        assert Path("deep.log").exists()
    elif case == "a URL":
        assert Path("study.db").exists()
    elif case == "a journal":
        assert Path("journals/mine.log").exists()
    elif case == "wrapped pruner":
        assert isinstance(pruner._wrapped_pruner, optuna.pruners.PercentilePruner)
        assert pruner._patience == 1
    elif case == "another pruner":
        assert isinstance(pruner, optuna.pruners.MedianPruner)
    elif case == "functions for a sampler":
        assert sampler._gamma(10) == 5
        assert sampler._constraints_func.__name__ == "constraints"
    else:
        inner = sampler._independent_sampler
        assert isinstance(inner, optuna.samplers.QMCSampler)
        assert isinstance(inner._independent_sampler, optuna.samplers.RandomSampler)
        assert sampler._constraints_func.__name__ == "constraints"
        assert not sampler._deterministic
        # What it chooses by is what the trials came out as.
        storage = made["place"].open()
        assert all(len(trial.constraints) == 1 for trial in storage.get_all_trials(0))
    assert (Path("out/optimization_journal.log")).exists() == (
        "pruner" in case or "sampler" in case
    )
