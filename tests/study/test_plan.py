"""What a study is made of, every nested form of it, and every way in which it can be wrong."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import optuna
import pytest

import studies
from finetune_lm import DataTrainingArguments, OptimizationArguments, UserError
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.cli import main
from finetune_lm.study import search
from finetune_lm.study.results import load_results
from studies import data_args, run_study, study_args

pytestmark = pytest.mark.usefixtures("in_tmp_path")


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
        "study_kwargs.sampler_kwargs.n_startup is not an argument of RandomSampler, which takes "
        "seed. __delete_field__ removes a default.",
    ),
    "a parameter": (
        {"params": {"lrr": {"values": [1, 2]}}},
        "params.lrr is not an argument for data and training, nor one of the optimizer or of a "
        "loss. Did you mean params.lr?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_told_before_a_model_is_loaded(tmp_path, case):
    kwargs, problem = WRONG[case]
    kwargs = {
        key: {k: DELETE_FIELD if v is None else v for k, v in value.items()}
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
