"""Two studies are one only if the values of their trials can be compared."""

from __future__ import annotations

import pytest

from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.data.files import read_files
from finetune_lm.runs.identity import names_of_differences
from finetune_lm.study.identity import study_identity, study_name
from finetune_lm.study.search_space import search_space
from helpers import write_lines
from studies import ListLoss


def identified(tmp_path, model="org/model", params=None, study_kwargs=None, **kwargs):
    model_args = ModelArguments(model, **kwargs.pop("model_args", {}))
    data_args = DataTrainingArguments(
        **{
            "train_file": write_lines(tmp_path / "teach.txt.gz", ["a b"]),
            "validation_file": write_lines(tmp_path / "check.txt.gz", ["c d"]),
            **kwargs,
        }
    )
    optimization_args = OptimizationArguments(
        params=params or {}, study_kwargs=study_kwargs or {}, do_optimize=True
    )
    files = read_files(data_args)
    parameters = search_space(optimization_args.params, data_args)
    identity = study_identity(model_args, data_args, optimization_args, parameters, files)
    return study_name(model_args, optimization_args, identity, files), identity


def test_the_name_holds_model_file_direction_and_parameters(tmp_path):
    name, _ = identified(tmp_path, params={"delta": {"values": [0, 1]}})
    readable, _, letters = name.rpartition("_")
    assert readable == "org-model_teach_minimize_lr_delta"
    assert len(letters) == 8


def test_a_name_that_is_given(tmp_path):
    assert identified(tmp_path, study_kwargs={"study_name": "mine"})[0] == "mine"
    assert identified(tmp_path, study_kwargs={"study_name": 7})[0] == "7"


DIFFERENT = {
    "model": {"model": "other"},
    "model_revision": {"model_args": {"model_revision": "v2"}},
    "epochs": {"epochs": 7},
    "train_optimizer_kwargs": {"train_optimizer_kwargs": {"weight_decay": 0.5}},
    "per_device_train_batch_size": {"per_device_train_batch_size": 4},
    "direction": {"study_kwargs": {"direction": "maximize"}},
    "params": {"params": {"lr": {"values": [1e-6, 1e-5]}}},
    "params too": {"params": {"delta": {"values": [0, 1]}}},
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_makes_another_study_of_it(tmp_path, case):
    name, identity = identified(tmp_path)
    other_name, other = identified(tmp_path, **DIFFERENT[case])
    assert name != other_name
    differing = names_of_differences(identity, other)
    assert differing == ["model_name_or_path" if case == "model" else case.split()[0]]


def test_other_data_of_the_same_name_make_another_study(tmp_path):
    name, identity = identified(tmp_path)
    (tmp_path / "sub").mkdir()
    path = write_lines(tmp_path / "sub" / "teach.txt.gz", ["other"])
    other_name, other = identified(tmp_path, train_file=path)
    assert name != other_name
    assert names_of_differences(identity, other) == ["train_file"]


def test_what_changes_no_value_makes_no_other_study(tmp_path):
    (tmp_path / "sub").mkdir()
    same_data = {
        "train_file": write_lines(tmp_path / "sub" / "teach.txt.gz", ["a b"]),
        "validation_file": write_lines(tmp_path / "sub" / "other.txt.gz", ["c d"]),
    }
    assert identified(tmp_path) == identified(
        tmp_path,
        **same_data,
        seed=9,
        output_dir="x",
        save_best_model_state_to_disk=False,
        preprocessing_num_workers=1,
        checkpoint_every=3,
        data_preprocessing_fn_strategy={"test": "per_batch"},
        # The value without a study of what is searched for is not used.
        train_optimizer_kwargs={"lr": 0.5},
        model_args={"use_gpu": True, "token": "hf_secret", "cache_dir": "c"},
        study_kwargs={"storage": "sqlite:///x.db", "load_if_exists": True},
    )


def test_values_of_lists_that_are_searched_for_do_not_matter(tmp_path):
    def of(*values):
        return identified(
            tmp_path,
            loss_classes={"train": [ListLoss]},
            loss_classes_kwargs={"train": {"ListLoss": {"scaleby": list(values)}}},
            params={"train_ListLoss_scaleby": {"values": [1, 3]}},
        )

    assert of(1.0, 2.0) == of(5.0, 6.0)
    assert of(1.0, 2.0) != of(1.0, 2.0, 3.0)


def test_what_only_one_version_of_the_program_knows_is_of_no_account():
    assert names_of_differences({"a": 1, "old": 2}, {"a": 1, "new": 3}) == []


def test_no_token_is_in_it(tmp_path):
    _, identity = identified(tmp_path, model_args={"token": "hf_secret"})
    assert "hf_secret" not in str(identity)
