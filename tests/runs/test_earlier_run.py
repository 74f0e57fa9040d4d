from __future__ import annotations

import json

import pytest
import yaml

from finetune_lm.errors import UserError
from finetune_lm.runs.earlier_run import EarlierRun, warn_of_changed_model
from finetune_lm.runs.record import RunRecord, versions
from finetune_lm.whole_files import checksums, sealed

CONFIG = {
    "epochs": 10,
    "patience": None,
    "min_epochs": 0,
    "train_optimizer_kwargs": {"lr": 1e-3, "weight_decay": 0},
    "output_dir": "out",
    "checkpoint_every": None,
    "on_nan": "stop",
}
IDENTITY = {
    **{name: value for name, value in CONFIG.items() if name not in ("output_dir", "on_nan")},
    "on_nan": "stop",
    "loss_classes_kwargs": {"train": {"KL": {"dataset": "sha256:a1"}}},
    "train_file": [["t", "t1"]],
    "test_file": [["a", "a1"]],
    "code": {"mine": "m1"},
    "model": {"weights": "w1", "config": "5.0:c1"},
}
del IDENTITY["checkpoint_every"]
PATHS = {"t2": "new/t.txt", "a2": "a.txt", "a1": "a.txt", "b1": "b.txt", "a3": "k.txt"}


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    record = {"state": "interrupted", "identity": IDENTITY, "versions": versions()}
    (tmp_path / "run.json").write_text(sealed(record))
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"epochs": 11},
        {"on_nan": "skip"},
        {"patience": None},
        {"new_argument_of_a_later_version": 3},
        {"code": {"mine": "m1", "lazily_imported": "l1"}},
        # Another version of transformers, which is warned of, may know other settings.
        {"model": {"weights": "w1", "config": "5.1:c2"}},
    ],
)
def test_what_may_be_another(directory, changed):
    EarlierRun.read(directory).check({**IDENTITY, **changed}, PATHS)


ARGUMENTS = "a run is resumed with the arguments that it had, but "
NEW = "Start another run with the new ones."


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"epochs": 9}, f"{ARGUMENTS}epochs was 10 and is 9. epochs can only be raised."),
        ({"min_epochs": 1}, f"{ARGUMENTS}min_epochs was 0 and is 1. {NEW}"),
        ({"patience": 3}, f"{ARGUMENTS}patience was None and is 3. patience can only be raised."),
        (
            {"train_optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0}},
            f"{ARGUMENTS}train_optimizer_kwargs.lr was 0.001 and is 0.0001. {NEW}",
        ),
        (
            {"train_optimizer_kwargs": {"lr": 1e-3}},
            f"{ARGUMENTS}train_optimizer_kwargs.weight_decay was 0 and is not given. {NEW}",
        ),
        (
            {"train_optimizer_kwargs": {"lr": 1e-3, "weight_decay": 0, "betas": 3}},
            f"{ARGUMENTS}train_optimizer_kwargs.betas was not given and is 3. {NEW}",
        ),
        (
            {"test_file": [["a", "a1"], ["b", "b1"]]},
            "test_file must keep its name, which is in the tables, but test_file was a and is a, "
            f"b. {NEW}",
        ),
        (
            {"train_file": [["u", "t1"]]},
            "train_file must keep its name, which is in the tables, but train_file was t and is u. "
            f"{NEW}",
        ),
        (
            {"train_file": [["t", "t2"]]},
            "new/t.txt must say what it did when the run began, but it or its "
            "metadata have changed. Put it back, or start another run.",
        ),
        (
            {"loss_classes_kwargs": {"train": {"KL": {"dataset": "sha256:a3"}}}},
            "k.txt must say what it did when the run began, but it or its "
            "metadata have changed. Put it back, or start another run.",
        ),
        (
            {"code": {"mine": "m2"}},
            "mine must be the program that it was when the run began, but its source has changed. "
            "Put it back, or start another run.",
        ),
        (
            {"model": {"weights": "w2", "config": "5.0:c1"}},
            "model_name_or_path must be the model that it was when the run began, but its weights "
            "have changed. Put it back, or start again in another output_dir.",
        ),
        (
            {"model": {"weights": "w1", "config": "5.0:c2"}},
            "model_name_or_path must be the model that it was when the run began, but its "
            "configuration has changed. Put it back, or start again in another output_dir.",
        ),
    ],
)
def test_what_must_not_be_another(directory, changed, expected):
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory).check({**IDENTITY, **changed}, PATHS)
    assert list(caught.value.problems) == [expected]


def test_all_of_them_are_told(directory):
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory).check({**IDENTITY, "epochs": 9, "min_epochs": 2}, PATHS)
    assert len(caught.value.problems) == 2


def test_what_is_given_anew(directory):
    earlier = EarlierRun.read(directory)
    changed = {"epochs": 11, "output_dir": "elsewhere", "checkpoint_every": 5}
    assert earlier.given_anew({**CONFIG, **changed}) == ["epochs was 10 and is 11"]


def test_files_that_are_elsewhere_are_told(directory, capsys):
    earlier = EarlierRun.read(directory)
    earlier.config["train_file"] = "old/t.txt"
    earlier.tell_of_moved_files({**earlier.config, "train_file": "new/t.txt", "epochs": 11})
    told = "train_file was old/t.txt and is new/t.txt, which says the same."
    assert told in capsys.readouterr().err
    assert "epochs" not in told


ODD = ["{", "[1]", "\0", "", "5", "null", '"finished"', "{}", '{"state": "finished"}', "[" * 10**5]
ODD += ['{"state": 3, "identity": [], "sessions": 7, "seconds": "x", "checksum": 0}']


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in ("config.yaml", "run.json")
        for content in (None, *ODD)
        # A dictionary, as a config file is.
        if name == "run.json" or not (content or "").endswith("}")
    ],
)
def test_a_directory_that_is_none_of_a_run(directory, name, content):
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    with pytest.raises(UserError) as caught:
        EarlierRun.read(directory)
    assert name in str(caught.value)


@pytest.mark.parametrize("content", [None, *ODD])
def test_a_record_that_is_damaged_or_gone_is_made_up_for_by_a_checkpoint(
    directory, content, capsys
):
    (directory / "run.json").unlink()
    if content is not None:
        (directory / "run.json").write_text(content)
    for number, text in enumerate([sealed({"identity": IDENTITY}), "{", "[" * 10**5]):
        (directory / "checkpoints" / str(number)).mkdir(parents=True)
        (directory / "checkpoints" / str(number) / "manifest.json").write_text(text)
    earlier = EarlierRun.read(directory)
    assert earlier.identity == IDENTITY
    assert not earlier.is_finished
    earlier.warn_of_changed_files()
    said = capsys.readouterr().err
    assert "run.json" in said
    assert "is resumed from what its last checkpoint says" in said


def test_a_record_that_was_edited_is_not_believed(directory):
    path = directory / "run.json"
    path.write_text(path.read_text().replace("interrupted", "finished"))
    with pytest.raises(UserError, match="is damaged: it is not as it was written"):
        EarlierRun.read(directory)


def test_files_that_were_edited_are_told(directory, capsys):
    (directory / "model").mkdir()
    (directory / "model" / "weights").write_bytes(b"abc")
    record = {"identity": IDENTITY, "files": checksums(directory, "config.yaml", "model")}
    (directory / "run.json").write_text(sealed(record))
    EarlierRun.read(directory).warn_of_changed_files()
    warn_of_changed_model(str(directory / "model"))
    assert capsys.readouterr().err == ""
    (directory / "model" / "weights").write_bytes(b"abd")
    EarlierRun.read(directory).warn_of_changed_files()
    warn_of_changed_model(str(directory / "model"))
    said = capsys.readouterr().err
    assert said.count(f"{directory / 'model' / 'weights'} has changed since the run") == 2


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
