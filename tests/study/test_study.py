from __future__ import annotations

import threading
import time

import optuna
import pytest

from finetune_lm import UserError
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.study import study as study_module
from finetune_lm.study.storage import storage_place
from finetune_lm.study.study import RECORD, StudyRecord, begin_study, find_study, load_study

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
    message = "is in .* already. To go on with it give --study_kwargs.load_if_exists"
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
    monkeypatch.setattr(study_module, "_WAIT_SECONDS", 0.2)
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
