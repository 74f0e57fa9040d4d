from __future__ import annotations

import logging
import warnings

import optuna
import pytest

from finetune_lm.study.optuna_messages import OptunaMessages


def test_what_is_experimental_is_said_once_in_words(capsys):
    messages = OptunaMessages()
    with messages.active():
        for _ in range(2):
            optuna.pruners.PatientPruner(optuna.pruners.WilcoxonPruner(), patience=3)
            optuna.samplers.GPSampler(deterministic_objective=True)
        assert capsys.readouterr().err == ""
        messages.tell_experimental()
        messages.tell_experimental()
    assert capsys.readouterr().err == (
        f"warning: Optuna {optuna.__version__} calls WilcoxonPruner, PatientPruner, "
        f"deterministic_objective experimental: another version of it may do otherwise.\n"
    )


def test_other_warnings_are_said_once(capsys):
    with OptunaMessages().active():
        for _ in range(3):
            optuna.samplers.GPSampler(constraints_func=lambda trial: (0.0,))
    said = capsys.readouterr().err
    assert said.count("`constraints_func` has been deprecated") == 1
    assert said.startswith("warning: ")
    assert len(said.splitlines()) == 1


def test_trials_are_not_told_twice_and_log_records_once(capsys):
    with OptunaMessages().active():
        study = optuna.create_study()

        def objective(trial):
            if trial.number:
                raise ValueError("no")
            return trial.suggest_float("x", 0, 1)

        study.optimize(objective, n_trials=3, catch=(ValueError,))
        logger = logging.getLogger("optuna.samplers._gp.sampler")
        logger.warning("The parameter 'x' in trial#7 is sampled independently.")
        logger.warning("The parameter 'x' in trial#8 is sampled independently.")
        logger.info("nothing")
    assert capsys.readouterr().err == (
        "warning: The parameter 'x' in trial#7 is sampled independently.\n"
    )


def test_afterwards_everything_is_as_it_was():
    def state():
        handlers = {id(handler) for handler in logging.getLogger("optuna").handlers}
        return handlers, optuna.logging.get_verbosity(), warnings.showwarning

    before = state()
    with OptunaMessages().active():
        assert state() != before
    assert state() == before
    with pytest.raises(RuntimeError), OptunaMessages().active():
        raise RuntimeError
    assert state() == before


def test_warnings_of_others_are_left_to_python():
    with pytest.warns(UserWarning, match="mine"), OptunaMessages().active():
        warnings.warn("mine", UserWarning, stacklevel=1)
