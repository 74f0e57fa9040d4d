"""Two studies are one only if the values of their trials can be compared."""

from __future__ import annotations

import threading
import time

import optuna
import pytest

from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments, UserError
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.data.files import read_files
from finetune_lm.runs.run_identity import names_of_differences
from finetune_lm.study import study_record
from finetune_lm.study.search_space import search_space
from finetune_lm.study.storage import storage_place
from finetune_lm.study.study_record import (
    RECORD,
    StudyRecord,
    begin_study,
    find_study,
    load_study,
    study_identity,
    study_name,
)
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


IDENTITY = {"epochs": 3, "params": {"lr": {"kind": "float"}}}


@pytest.fixture(params=["journal", "sqlite"])
def place(request, tmp_path):
    storage = {"journal": str(tmp_path / "j.log"), "sqlite": f"sqlite:///{tmp_path}/s.db"}
    return storage_place({"storage": storage[request.param]}, tmp_path / "x")


def begin(place, record, name="s", *, load_if_exists=False):
    return begin_study(place, name, record, "minimize", load_if_exists=load_if_exists)


def test_nothing_is_made_by_looking_for_a_study(tmp_path):
    place = storage_place({}, tmp_path / "out" / "j.log")
    assert find_study(place, "s", StudyRecord(IDENTITY, 1), load_if_exists=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_begun_once(place):
    mine = StudyRecord(IDENTITY, 5)
    assert find_study(place, "s", mine, load_if_exists=True) is None
    assert begin(place, mine) is mine
    assert find_study(place, "s", mine, load_if_exists=True) == mine
    message = "is in .* already. To continue it, give --study_kwargs.load_if_exists"
    with pytest.raises(UserError, match=message):
        find_study(place, "s", mine, load_if_exists=False)
    with pytest.raises(UserError, match=message):
        begin(place, mine)
    assert begin(place, mine, load_if_exists=True) == mine
    assert find_study(place, "other", mine, load_if_exists=False) is None


def test_a_seed_that_nobody_chose_gives_way_to_that_of_the_study(place):
    begin(place, StudyRecord(IDENTITY, DrawnSeed(5)))
    for chosen in (5, DrawnSeed(9)):
        found = find_study(place, "s", StudyRecord(IDENTITY, chosen), load_if_exists=True)
        assert found is not None
        assert found.seed == 5
    with pytest.raises(UserError, match=r"made with another seed \(5, not 9\)"):
        find_study(place, "s", StudyRecord(IDENTITY, 9), load_if_exists=True)


def test_another_study_of_the_same_name_is_refused(place):
    begin(place, StudyRecord(IDENTITY, 5))
    other = {**IDENTITY, "epochs": 4, "params": {"lr": {"kind": "int"}}}
    for use in (find_study, lambda *args, **kwargs: begin(place, args[2], **kwargs)):
        with pytest.raises(UserError, match=r"made with another epochs and params, so its trials"):
            use(place, "s", StudyRecord(other, 5), load_if_exists=True)


def test_a_study_that_something_else_has_made(place, monkeypatch):
    monkeypatch.setattr(study_record, "_WAIT_SECONDS", 0.2)
    optuna.create_study(storage=place.open(), study_name="s")
    with pytest.raises(UserError, match="was not made by finetune-lm"):
        find_study(place, "s", StudyRecord(IDENTITY, 1), load_if_exists=True)


def test_whoever_comes_second_waits_for_the_record(place):
    """Between beginning a study and putting its record down there is a moment."""
    storage = place.open()
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    record = StudyRecord(IDENTITY, 5)

    def put_down():
        time.sleep(0.5)
        place.open().set_study_user_attr(study_id, RECORD, record.describe())

    thread = threading.Thread(target=put_down)
    thread.start()
    mine = StudyRecord(IDENTITY, DrawnSeed(9))
    assert begin(place, mine, load_if_exists=True) == record
    thread.join()


def test_a_study_is_opened_with_its_direction(place):
    begin_study(place, "s", StudyRecord(IDENTITY, 1), "maximize", load_if_exists=False)
    sampler, pruner = optuna.samplers.RandomSampler(), optuna.pruners.NopPruner()
    opened = load_study(place, "s", sampler, pruner)
    assert opened.direction.name == "MAXIMIZE"
    assert (opened.sampler, opened.pruner) == (sampler, pruner)
