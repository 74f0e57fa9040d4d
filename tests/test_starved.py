"""Runs whose disk is full, read-only or gone in the middle: told in words, and gone on with."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

import finetune_lm
from crashing import difference, in_a_process, run_limited
from finetune_lm import UserError
from finetune_lm.cli import main
from finetune_lm.training import loop
from setups import DATA, arguments, setup
from studies import data_args, run_study, study_args


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole") / "out"
    return finetune_lm.run(*arguments(*setup("lm", output_dir=str(place)))).output_dir


def begin(output_dir):
    return finetune_lm.run(*arguments(*setup("lm", output_dir=str(output_dir))))


def readable_epochs(output_dir):
    metrics = pd.read_csv(Path(output_dir) / "metrics.csv.gz")
    return sorted(metrics["epoch"].unique())


def state(output_dir):
    return json.loads((Path(output_dir) / "run.json").read_text())["state"]


@pytest.fixture
def disk(tmp_path):
    """A file system of a few megabytes, and what mounts it with other options."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.run(command, check=False).returncode:
        pytest.skip("only root can mount a file system")

    def mount(*options):
        subprocess.run(["mount", *options, str(place)], check=True)

    yield place, mount
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_from_the_start(disk, tmp_path):
    place, mount = disk
    out = place / "out"
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    told = f"{out} cannot be written to: No space left on device. What was written before"
    with pytest.raises(UserError, match=told):
        begin(out)
    # A study puts its record there first, and then its journal.
    with pytest.raises(UserError, match="No space left on device"):
        run_study("tiny-lm", data_args(tmp_path, output_dir=str(place / "study")), study_args(1))
    (place / "filler").unlink()
    mount("-o", "remount,size=64m")
    finetune_lm.run(*arguments(*setup("lm", output_dir=str(out), epochs=1, test_file=None)))


# 2 MB hold no weights, 3 no optimizer, 8 one checkpoint, 12 two but not the saved model as well.
@pytest.mark.parametrize("megabytes", [2, 3, 8, 12])
def test_a_full_disk(whole, disk, megabytes):
    place, mount = disk
    out = place / "out"
    mount("-o", f"remount,size={megabytes}m")
    with pytest.raises(UserError) as caught:
        begin(out)
    assert str(caught.value) == (
        f"{out} cannot be written to: No space left on device. What was written before is kept. "
        f"When that is fixed: --resume {out}"
    )
    assert readable_epochs(out)[:2] == [-1, 0]
    assert state(out) == "failed"
    assert not (out / "checkpoints" / ".new").exists()
    mount("-o", "remount,size=64m")
    finetune_lm.resume(out)
    assert difference(whole, out) == []


def test_a_disk_that_becomes_read_only(whole, disk, monkeypatch):
    place, mount = disk
    out = place / "out"
    mount("-o", "remount,size=64m")
    steps = []

    def learn(*args, original=loop.learn):
        steps.append(1)
        if len(steps) == 5:
            # A second, read-only view of it in its place.
            mount("--bind", str(place))
            mount("-o", "remount,bind,ro")
        return original(*args)

    monkeypatch.setattr(loop, "learn", learn)
    with pytest.raises(UserError, match="cannot be written to: Read-only file system"):
        begin(out)
    assert readable_epochs(out) == [-1, 0]
    with pytest.raises(UserError, match="output_dir must be writable"):
        finetune_lm.resume(out)
    subprocess.run(["umount", str(place)], check=True)
    finetune_lm.resume(out)
    assert difference(whole, out) == []


@pytest.mark.parametrize("gone", ["out", "out/checkpoints", "out/metrics.csv.gz"])
def test_a_directory_that_vanishes(whole, monkeypatch, gone):
    steps = []

    def learn(*args, original=loop.learn):
        steps.append(1)
        if len(steps) == 5:
            Path(gone).rename("elsewhere")
        return original(*args)

    monkeypatch.setattr(loop, "learn", learn)
    if gone == "out/checkpoints":  # nobody misses them, since the next one makes them again
        begin("out")
        assert difference(whole, Path("out")) == []
        return
    with pytest.raises(UserError, match="out cannot be written to: No such file or directory"):
        begin("out")
    kept = Path("elsewhere/metrics.csv.gz" if gone == "out" else "elsewhere")
    metrics = pd.read_csv(kept, compression="gzip")
    assert sorted(metrics["epoch"].unique()) == [-1, 0]
    # Once it is back, the run goes on.
    Path("elsewhere").replace(gone)
    finetune_lm.resume("out")
    assert difference(whole, Path("out")) == []


@pytest.mark.parametrize("n_bytes", [0, 2_000, 10_000, 1_000_000, 4_000_000])
def test_a_file_that_may_not_become_so_large(whole, n_bytes):
    """As with a quota: the configuration, a table, weights and the optimizer are too large."""
    run = arguments(*setup("lm", output_dir="out"))
    assert in_a_process(run_limited, resource.RLIMIT_FSIZE, n_bytes, *run) == 2
    assert "out cannot be written to: File too large" in Path("said").read_text()
    if n_bytes > 2_000:
        finetune_lm.resume("out")
        assert difference(whole, Path("out")) == []


def test_room_on_the_disk_is_not_needed_to_say_that_there_is_none(
    whole, disk, monkeypatch, tmp_path
):
    """The table cannot take one byte more, nor can run.json be written again."""
    place, mount = disk
    out = place / "out"
    mount("-o", "remount,size=64m")
    filler = place / "filler"

    def learn(*args, original=loop.learn):
        if not filler.exists() and (out / "checkpoints" / "000002").exists():
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
        return original(*args)

    monkeypatch.setattr(loop, "learn", learn)
    with pytest.raises(UserError, match="No space left on device"):
        begin(out)
    assert readable_epochs(out) == [-1, 0, 1]
    filler.unlink()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    finetune_lm.resume(out)
    assert difference(whole, out) == []


LONG = "/".join(["x" * 200] * 30)
PATHS = {
    "output_dir": ["--output_dir", LONG],
    "an output_dir without room for its files": ["--output_dir", "/".join(["x" * 200] * 19)],
    "train_file": ["--train_file", f"{LONG}.txt"],
    "test_file": ["--test_file", f"{LONG}.txt"],
    "a name": ["--test_file", f"{'x' * 300}.txt"],
    "model": ["--model_name_or_path", LONG],
    "tokenizer": ["--tokenizer_name", LONG],
    "config": ["--config", f"{LONG}.yaml"],
    "resume": ["--resume", LONG],
    "token": ["--token", LONG],
    "cache_dir": ["--cache_dir", LONG],
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_that_is_too_long(case, capsys):
    """In Python's own terms, these are errors of the operating system."""
    files = [str(DATA / f"flomped_{kind}.txt.gz") for kind in ("active", "passive")]
    usual = {"--train_file": files[0], "--validation_file": files[1]}
    usual |= {"--model_name_or_path": "tiny-lm", "--epochs": "1", "--max_train_samples": "2"}
    argv = [] if case == "resume" else [x for pair in usual.items() for x in pair]
    [name, value] = PATHS[case]
    if name in argv:
        argv[argv.index(name) + 1] = value
    else:
        argv += [name, value]
    status = main(argv)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert (status, case) in [(2, case), (0, "token"), (0, "cache_dir")], said
