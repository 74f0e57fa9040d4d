from __future__ import annotations

import json

import pytest
import yaml

from finetune_lm.errors import UserError
from finetune_lm.results.earlier_run import EarlierRun
from finetune_lm.results.run_record import RunRecord, versions

CONFIG = {
    "model_name_or_path": "tiny-lm",
    "epochs": 10,
    "patience": None,
    "min_epochs": 0,
    "train_optimizer_kwargs": {"lr": 1e-3, "weight_decay": 0},
    "output_dir": "out",
    "checkpoint_every": None,
    "on_nan": "stop",
    "test_file": ["a.txt"],
}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    record = {"state": "interrupted", "data_sha256": {"a.txt": "1"}, "versions": versions()}
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_the_same_arguments(directory):
    assert EarlierRun.read(directory).changes(CONFIG) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"epochs": 11}, ["epochs was 10 and is 11"]),
        ({"checkpoint_every": 5}, ["checkpoint_every was None and is 5"]),
        (
            {"on_nan": "skip", "epochs": 20},
            ["epochs was 10 and is 20", "on_nan was stop and is skip"],
        ),
        ({"output_dir": "elsewhere"}, []),
        ({"new_argument_of_a_later_version": 3}, []),
    ],
)
def test_what_may_be_another(directory, changed, expected):
    changes = EarlierRun.read(directory).changes({**CONFIG, **changed})
    assert sorted(changes) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"epochs": 9}, "epochs was 10 and is 9. epochs can only be raised."),
        ({"min_epochs": 1}, "min_epochs was 0 and is 1. Start another run with the new ones."),
        ({"patience": 3}, "patience was None and is 3. patience can only be raised."),
        (
            {"train_optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0}},
            "train_optimizer_kwargs.lr was 0.001 and is 0.0001. Start another run with the new "
            "ones.",
        ),
        (
            {"train_optimizer_kwargs": {"lr": 1e-3}},
            "train_optimizer_kwargs.weight_decay was 0 and is not given. Start another run with "
            "the new ones.",
        ),
        (
            {"train_optimizer_kwargs": {"lr": 1e-3, "weight_decay": 0, "betas": 3}},
            "train_optimizer_kwargs.betas was not given and is 3. Start another run with the new "
            "ones.",
        ),
        (
            {"test_file": ["a.txt", "b.txt"]},
            "test_file was ['a.txt'] and is ['a.txt', 'b.txt']. Start another run with the new "
            "ones.",
        ),
    ],
)
def test_what_must_not_be_another(directory, changed, expected):
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory).changes({**CONFIG, **changed})
    message = f"a run is resumed with the arguments that it had, but {expected}"
    assert list(caught.value.problems) == [message]


def test_all_of_them_are_told(directory):
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory).changes({**CONFIG, "epochs": 9, "min_epochs": 2})
    assert len(caught.value.problems) == 2


def test_patience_may_become_endless(directory):
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "patience": 5}))
    earlier = EarlierRun.read(directory)
    assert earlier.changes({**CONFIG, "patience": None}) == ["patience was 5 and is None"]
    assert earlier.changes({**CONFIG, "patience": 6}) == ["patience was 5 and is 6"]


def test_data(directory):
    earlier = EarlierRun.read(directory)
    earlier.check_data({"a.txt": "1"})
    with pytest.raises(UserError, match=r"^a\.txt must say what it did when the run began"):
        earlier.check_data({"a.txt": "2"})


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
@pytest.mark.parametrize("content", [None, "{", "[1]", "\0"])
def test_a_directory_that_is_none_of_a_run(directory, name, content):
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory)
    assert name in str(caught.value)


def test_surroundings(directory, capsys):
    earlier = EarlierRun.read(directory)
    earlier.warn_of_surroundings("cpu")
    assert capsys.readouterr().err == ""
    earlier.record["device"] = "cuda:0"
    earlier.record["versions"]["torch"] = "2.0"
    earlier.warn_of_surroundings("cpu")
    said = capsys.readouterr().err
    assert f"(torch 2.0 -> {versions()['torch']}, device cuda:0 -> cpu)" in said


# run.json over several sessions


def read(path):
    return json.loads(path.read_text())


def test_sessions_and_seconds_are_added_up(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    path = tmp_path / "run.json"
    first = RunRecord(path, device="cpu")
    with pytest.raises(RuntimeError), first.timed("training"):  # noqa: PT012
        now[0] += 10
        first.write()  # as at a checkpoint
        assert read(path)["seconds"] == {"training": 10, "total": 10}
        now[0] += 5
        raise RuntimeError
    # killed without another word
    assert read(path)["state"] == "running"
    started = read(path)["started"]

    now[0] = 1000.0
    second = RunRecord(path, read(path), device="cpu")
    assert [s["state"] for s in read(path)["sessions"]] == ["killed", "running"]
    with second.timed("training"):
        now[0] += 20
    with second.timed("testing"):
        now[0] += 3
    second.end("interrupted")
    assert read(path)["seconds"] == {"total": 38, "training": 35, "testing": 3}

    third = RunRecord(path, read(path), device="cpu")
    third.add(best_epoch=4)
    third.end("finished")
    record = read(path)
    assert record["state"] == "finished"
    assert record["error"] is None
    assert record["started"] == started
    assert [s["state"] for s in record["sessions"]] == ["killed", "interrupted", "finished"]
    assert record["sessions"][0]["ended"] is None
    assert record["seconds"]["total"] == 38


def test_an_error_is_forgotten_when_the_run_goes_on(tmp_path):
    path = tmp_path / "run.json"
    RunRecord(path).end("failed", "No space left on device")
    assert read(path)["error"] == "No space left on device"
    RunRecord(path, read(path)).end("finished")
    assert read(path)["error"] is None
    assert [s["state"] for s in read(path)["sessions"]] == ["failed", "finished"]


def test_peak_memory_is_the_most_of_all_sessions(tmp_path):
    path = tmp_path / "run.json"
    RunRecord(path).end("interrupted")
    earlier = read(path)
    earlier["peak_memory_mb"] = {"cpu": 1e9, "cuda": 5.0}
    RunRecord(path, earlier).end("finished")
    assert read(path)["peak_memory_mb"] == {"cpu": 1e9, "cuda": 5.0}
