from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_lm.errors import UserError
from finetune_lm.runs.directory import (
    check_output_dir,
    check_results_name,
    choose_output_dir,
    is_about_writing,
    make_output_dir,
    results_name,
)
from finetune_lm.whole_files import sealed, write_whole

FUNCTION = {"test": "data_preprocessing.identity"}
TRAINING = SimpleNamespace(train_file="t", output_dir=None)
TESTING = SimpleNamespace(train_file=None, output_dir=None)
IDENTITY = {
    "seed": 1,
    "test_file": [["a", "123"]],
    "data_preprocessing_fn": FUNCTION,
    "code": {"mine": "1"},
    "model": {"weights": "w"},
}


def test_training_directory():
    path = choose_output_dir(None, "org/model", ["blick"])
    pattern = r"outputs/blick/org-model/\d{4}-\d\d-\d\d_([01]\d|2[0-3])_\d\d_\d\d\.\d{9}"
    assert re.fullmatch(pattern, str(path))
    assert path != choose_output_dir(None, "org/model", ["blick"])


def test_a_24_hour_clock(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_123_456_789)
    monkeypatch.setattr("time.localtime", __import__("time").gmtime)
    path = choose_output_dir(None, "m", ["t"])
    assert path.name == "2023-11-14_22_13_20.123456789"


def test_test_only_directory():
    assert choose_output_dir(None, "org/model", []) == Path("outputs/test_only/org-model")


def test_given_directory():
    assert choose_output_dir("x/y", "m", ["t"]) == Path("x/y")
    name = str(choose_output_dir("x/{now}-a", "m", ["t"]))
    assert re.fullmatch(r"x/\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d\.\d{9}-a", name)


def test_results_of_another_run_are_not_overwritten(tmp_path):
    (tmp_path / "metrics.csv.gz").write_text("rows")
    with pytest.raises(UserError, match=r"must not have results .* has metrics.csv.gz\. Give an"):
        check_output_dir(tmp_path, TRAINING, IDENTITY)


@pytest.mark.parametrize(
    ("changed", "differing"),
    [
        ({}, None),
        ({"seed": 99}, None),
        ({"test_file": [["b", "123"]]}, "test_file"),
        ({"test_file": [["a", "456"]]}, "test_file"),
        ({"code": {"mine": "2"}}, "source of mine"),
        ({"model": {"weights": "v"}}, "weights of the model"),
    ],
)
def test_the_same_test_may_replace_its_own_results(tmp_path, changed, differing):
    (tmp_path / "m-test_results.csv.gz").write_text("rows")
    (tmp_path / "run.json").write_text(sealed({"identity": IDENTITY}))
    if differing is None:
        check_output_dir(tmp_path, TESTING, {**IDENTITY, **changed})
        return
    with pytest.raises(UserError, match=rf"made with another {differing}\. Give"):
        check_output_dir(tmp_path, TESTING, {**IDENTITY, **changed})


@pytest.mark.parametrize("content", ["{", "[]", "{}", "3", "[" * 10**5, '{"identity": 3}'])
def test_results_whose_record_is_damaged_are_not_replaced(tmp_path, content):
    (tmp_path / "m-test_results.csv.gz").write_text("rows")
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"or their run\.json is damaged\. Give"):
        check_output_dir(tmp_path, TESTING, IDENTITY)


def test_another_seed_is_another_test_where_masks_are_random(tmp_path):
    random = {**IDENTITY, "data_preprocessing_fn": {"test": "mine.mask_something"}}
    (tmp_path / "m-test_results.csv.gz").write_text("rows")
    (tmp_path / "run.json").write_text(sealed({"identity": random}))
    check_output_dir(tmp_path, TESTING, random)
    with pytest.raises(UserError, match="made with another seed"):
        check_output_dir(tmp_path, TESTING, {**random, "seed": 2})


@pytest.mark.parametrize("name", ["config.yaml", "config.txt"])
def test_a_config_that_the_user_wrote_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("# mine")
    with pytest.raises(UserError, match=f"must not have a {name} that is not of a run"):
        check_output_dir(tmp_path, TRAINING, IDENTITY)


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="longer than 255"):
        check_output_dir(tmp_path / ("x" * 300), TRAINING, IDENTITY)


def test_a_directory_without_results_is_fine(tmp_path):
    (tmp_path / "notes.txt").touch()
    check_output_dir(tmp_path, TRAINING, IDENTITY)
    check_output_dir(tmp_path / "new" / "newer", TRAINING, IDENTITY)
    assert not (tmp_path / "new").exists()


def test_a_file_where_the_directory_should_be(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="must be a directory but"):
        check_output_dir(tmp_path / "x" / "y", TRAINING, IDENTITY)


def test_a_directory_that_cannot_be_written_into(tmp_path):
    # Not even root can write into the first; anybody else cannot into the second.
    directory = Path("/proc") if os.geteuid() == 0 else tmp_path
    tmp_path.chmod(0o500)
    if not directory.is_dir():
        pytest.skip("there is no such directory on this system")
    with pytest.raises(UserError, match=rf"must be writable but {directory} is not \(.*\)\."):
        check_output_dir(directory / "x" / "y", TRAINING, IDENTITY)


@pytest.mark.parametrize("target", ["x", "nothing"])
def test_a_link_that_leads_nowhere(tmp_path, target):
    (tmp_path / "x").symlink_to(tmp_path / target)
    for directory in (tmp_path / "x", tmp_path / "x" / "y"):
        with pytest.raises(UserError, match=r"x is a link that leads nowhere\."):
            check_output_dir(directory, TRAINING, IDENTITY)


def test_the_table_of_test_results_has_a_name_that_a_file_can_have():
    assert results_name(None, "org/model") == "org-model-test_results.csv.gz"
    assert results_name("mine", "org/model") == "mine-test_results.csv.gz"
    longest = results_name("é" * 115, "m")
    assert len(longest.encode()) == 250
    for prefix, name, whose in [
        ("x" * 300, "m", "test_output_file_prefix"),
        (None, "/scratch/" * 40, "model_name_or_path"),
        ("é" * 117, "m", "test_output_file_prefix"),
    ]:
        with pytest.raises(UserError, match=f"{whose} is too long for the name of a file"):
            check_results_name(prefix, name)


def test_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), write_whole(target) as aside:  # noqa: PT012
        aside.write_text("half")
        assert target.read_text() == "before"
        raise RuntimeError
    assert target.read_text() == "before"
    with write_whole(target) as aside:
        aside.write_text("after")
    assert target.read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_what_is_written_is_seen_safely_on_disk(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with write_whole(tmp_path / "model") as aside:
        (aside / "deep").mkdir(parents=True)
        (aside / "deep" / "weights").write_text("1")
    assert set(synced) == {".model.tmp", "deep", "weights", tmp_path.name}
    assert synced[-1] == tmp_path.name
    synced.clear()
    with write_whole(tmp_path / "run.json") as aside:
        aside.write_text("2")
    assert synced == [".run.json.tmp", tmp_path.name]


def test_whole_directories(tmp_path):
    for text in ("one", "two"):
        with write_whole(tmp_path / "d") as aside:
            aside.mkdir()
            (aside / "f").write_text(text)
    assert (tmp_path / "d" / "f").read_text() == "two"


def test_a_directory_that_cannot_be_made(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UserError, match="cannot be made: No space left on device"):
        make_output_dir(tmp_path / "y")


def test_errors_of_writing_are_told_from_others(tmp_path):
    assert is_about_writing(OSError(28, "No space left on device"), tmp_path)
    gone = FileNotFoundError(2, "No such file", str(tmp_path / "metrics.csv.gz"))
    assert is_about_writing(gone, tmp_path)
    assert not is_about_writing(FileNotFoundError(2, "No such file", "words.txt"), tmp_path)
