"""Classes with their ``*_kwargs`` become objects, however deep they are."""

from __future__ import annotations

import optuna
import pytest

from finetune_lm import UserError
from finetune_lm.study.objects import (
    make_object,
    make_objects,
    without_foreign_defaults,
)


class Leaf:
    def __init__(self, a=0, seed=None):
        self.a = a
        self.seed = seed


class Branch:
    def __init__(self, leaf, other_kwargs=None, n=1):
        self.leaf = leaf
        self.other_kwargs = other_kwargs
        self.n = n


def square(x, power=2):
    return x**power


def test_every_depth():
    made = make_objects(
        {
            "branch": Branch,
            "branch_kwargs": {
                "leaf": Branch,
                "leaf_kwargs": {"leaf": Leaf, "leaf_kwargs": {"a": 5}, "n": 7},
            },
            "alone": Leaf,
            "text": "x",
        },
        "study_kwargs",
    )
    assert made["branch"].leaf.leaf.a == 5
    assert made["branch"].leaf.n == 7
    assert made["alone"].a == 0
    assert made["text"] == "x"
    assert set(made) == {"branch", "alone", "text"}


def test_kwargs_without_a_class_beside_them_are_an_argument():
    made = make_object(Branch, {"leaf": None, "other_kwargs": {"a": Leaf}}, "x")
    assert made.other_kwargs == {"a": Leaf}


def test_functions_stay_functions():
    made = make_objects({"gamma": square, "weights": square, "weights_kwargs": {"power": 3}}, "x")
    assert made["gamma"] is square
    assert made["weights"](2) == 8


def test_objects_stay_as_they_are():
    leaf = Leaf()
    assert make_object(leaf, None, "x") is leaf
    assert make_object(leaf, {}, "x") is leaf


def test_a_seed_goes_to_whoever_takes_one():
    made = make_object(Branch, {"leaf": Leaf}, "x", {"seed": 4})
    assert made.leaf.seed == 4
    assert make_object(Leaf, {"seed": 1}, "x", {"seed": 4}).seed == 1


def gamma(n):
    return min(n, 3)


def constraints(trial):
    return (-1.0,)


def test_what_the_samplers_and_pruners_of_optuna_are_made_with():
    """Each form that is documented: samplers in samplers, functions, pruners in pruners."""
    tpe = make_object(
        optuna.samplers.TPESampler, {"gamma": gamma, "constraints_func": constraints}, "s"
    )
    assert tpe._gamma is gamma
    gp = make_object(
        optuna.samplers.GPSampler,
        {
            "constraints_func": constraints,
            "independent_sampler": optuna.samplers.QMCSampler,
            "independent_sampler_kwargs": {
                "qmc_type": "halton",
                "independent_sampler": optuna.samplers.TPESampler,
                "independent_sampler_kwargs": {"n_startup_trials": 3},
            },
        },
        "s",
        {"seed": 9},
    )
    assert gp._constraints_func is constraints
    inner = gp._independent_sampler
    assert isinstance(inner, optuna.samplers.QMCSampler)
    assert inner._seed == 9
    assert inner._independent_sampler._n_startup_trials == 3
    pruner = make_object(
        optuna.pruners.PatientPruner,
        {
            "wrapped_pruner": optuna.pruners.PatientPruner,
            "wrapped_pruner_kwargs": {
                "wrapped_pruner": optuna.pruners.WilcoxonPruner,
                "wrapped_pruner_kwargs": {"p_threshold": 0.2},
                "patience": 2,
            },
            "patience": 3,
        },
        "p",
    )
    assert pruner._wrapped_pruner._wrapped_pruner._p_threshold == 0.2


WRONG = {
    "an argument that it does not take": (
        (Leaf, {"b": 1}, "study_kwargs.thing"),
        "study_kwargs.thing_kwargs.b is not an argument of Leaf, which takes a, seed. "
        "__delete_field__ removes a default.",
    ),
    "a misspelt class": (
        (Branch, {"leef": Leaf, "leef_kwargs": {}}, "x"),
        "x_kwargs.leef is not an argument of Branch, which takes leaf, other_kwargs, n. Did you "
        "mean x_kwargs.leaf? __delete_field__ removes a default.",
    ),
    "something that it needs": (
        (Branch, {}, "x"),
        "x_kwargs.leaf must be given, because Branch needs it.",
    ),
    "a value that it refuses": (
        (optuna.pruners.PatientPruner, {"wrapped_pruner": None, "patience": -1}, "pruner"),
        "pruner optuna.pruners.PatientPruner cannot be made with wrapped_pruner=None, patience=-1 "
        "(an integer): patience cannot be negative but got -1.",
    ),
    "kwargs for an object": (
        (Leaf(), {"a": 1}, "x"),
        "x_kwargs (a) cannot be used because x is an object already. Give its class instead, or "
        "leave them out.",
    ),
    "kwargs that are none": (
        (Leaf, 3, "x"),
        "x_kwargs must be a dictionary but got 3 (an integer).",
    ),
    "deep down": (
        (Branch, {"leaf": Branch, "leaf_kwargs": {"leaf": Leaf, "leaf_kwargs": {"z": 1}}}, "x"),
        "x_kwargs.leaf_kwargs.leaf_kwargs.z is not an argument of Leaf, which takes a, seed. "
        "__delete_field__ removes a default.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_made(case):
    arguments, problem = WRONG[case]
    with pytest.raises(UserError) as caught:
        make_object(*arguments)
    assert caught.value.problems[0] == problem


DEFAULTS = {
    "x": Branch,
    "x_kwargs": {
        "leaf": Leaf,
        "leaf_kwargs": {"a": 1, "seed": 2},
        "n": 3,
    },
    "direction": "minimize",
}


def test_defaults_for_another_class_are_left_out(capsys):
    given = {**DEFAULTS, "x": Leaf, "x_kwargs": {**DEFAULTS["x_kwargs"], "a": 7, "b": 5}}
    kept = without_foreign_defaults(given, DEFAULTS, "study_kwargs")
    # What is not a default stays, to be told if the class does not take it.
    assert kept == {"x": Leaf, "x_kwargs": {"a": 7, "b": 5}, "direction": "minimize"}
    assert capsys.readouterr().err == (
        "study_kwargs.x_kwargs: defaults for Branch are not passed to Leaf: leaf, leaf_kwargs, n.\n"
    )


def test_defaults_for_another_class_are_left_out_deep_down(capsys):
    given = {**DEFAULTS, "x_kwargs": {**DEFAULTS["x_kwargs"], "leaf": square}}
    kept = without_foreign_defaults(given, DEFAULTS, "s")
    assert kept["x_kwargs"] == {"leaf": square, "leaf_kwargs": {}, "n": 3}
    assert capsys.readouterr().err.startswith("s.x_kwargs.leaf_kwargs: defaults for Leaf are not")


def test_defaults_for_the_default_class_stay(capsys):
    assert without_foreign_defaults(DEFAULTS, DEFAULTS, "s") == DEFAULTS
    changed = {**DEFAULTS, "x": Leaf, "x_kwargs": {**DEFAULTS["x_kwargs"], "n": 4}}
    assert "n" in without_foreign_defaults(changed, DEFAULTS, "s")["x_kwargs"]
    without = {"direction": "maximize"}
    assert without_foreign_defaults(without, DEFAULTS, "s") == without
    capsys.readouterr()


class NeverMade:
    """No sampler, pruner or storage: to call it could do anything."""

    def __init__(self, *args, **kwargs):
        raise AssertionError("it was called")


@pytest.mark.parametrize(
    ("cls", "kwargs", "where", "told"),
    [
        (NeverMade, {}, "sampler", "sampler must be a class that inherits from "
         "optuna.samplers.BaseSampler but got "),
        (NeverMade, {"a": 1}, "pruner", "pruner must be a class that inherits from "
         "optuna.pruners.BasePruner but got "),
        (NeverMade, {}, "storage", "storage must be a class that inherits from "
         "optuna.storages.BaseStorage or optuna.storages.journal.BaseJournalBackend but got "),
        (optuna.samplers.RandomSampler, {}, "pruner", "pruner must be a class that inherits"),
        (optuna.pruners.PatientPruner, {"wrapped_pruner": NeverMade, "patience": 1}, "pruner",
         "pruner_kwargs.wrapped_pruner must be a class that inherits"),
        (optuna.samplers.GPSampler, {"independent_sampler": NeverMade}, "sampler",
         "sampler_kwargs.independent_sampler must be a class that inherits"),
        (optuna.storages.JournalStorage, {"log_storage": NeverMade}, "storage",
         "storage_kwargs.log_storage must be a class that inherits"),
        (optuna.storages.JournalStorage, {"log_storage": optuna.storages.journal.JournalFileBackend,
         "log_storage_kwargs": {"file_path": "x", "lock_obj": NeverMade}}, "storage",
         "storage_kwargs.log_storage_kwargs.lock_obj must be a class that inherits"),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_is_not_called(cls, kwargs, where, told):
    with pytest.raises(UserError) as caught:
        make_object(cls, kwargs, f"study_kwargs.{where}")
    assert caught.value.problems[0].startswith(f"study_kwargs.{told}")
