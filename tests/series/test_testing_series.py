"""Series of directories, and of revisions in a cache that is like the Hub's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from huggingface_hub.hf_api import GitRefInfo, GitRefs
from safetensors.torch import load_file, save_file

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.cli import main
from finetune_lm.recording.tables import load_metrics
from finetune_lm.scoring.forward import Forward
from helpers import write_lines

TINY = Path(finetune_lm.__file__).parent / "models" / "builtin" / "tiny-lm"
TEXTS = ['He said: "so,\nwhat?"', "The water was drunk.", "The glass broke, tiny-lm,lm,0.4M."]
NAMES = ["step1", "step2", "step10"]


def put_model(directory: Path, scale: float) -> None:
    """A model like tiny-lm with other weights."""
    shutil.copytree(TINY, directory)
    weights = load_file(directory / "model.safetensors")
    torch.manual_seed(0)
    changed = {name: value * scale for name, value in weights.items()}
    save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A directory with three checkpoints, and something else."""
    place = tmp_path_factory.mktemp("series") / "checkpoints"
    for number, name in enumerate(NAMES):
        put_model(place / name, 1 + number / 10)
    (place / "logs").mkdir()
    return place


@pytest.fixture(scope="module")
def cache(checkpoints, tmp_path_factory):
    """The same as revisions of a model in a cache, as the Hub's client keeps it."""
    root = tmp_path_factory.mktemp("cache")
    for name in NAMES:
        put_revision(root, name, checkpoints / name)
    return root


def put_revision(root, name, source):
    repo = root / "models--me--series"
    commit = hashlib.sha1(name.encode()).hexdigest()
    for directory in (repo / "blobs", repo / "snapshots" / commit, repo / "refs"):
        directory.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / name).write_text(commit)
    for path in source.iterdir():
        blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        link = repo / "snapshots" / commit / path.name
        link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "a.jsonl.gz", [json.dumps({"text": text}) for text in TEXTS])
    write_lines(tmp_path / "b.txt.gz", ["The women drank."])


def words(model, *more):
    files = ("--test_file", "a.jsonl.gz", "b.txt.gz", "--output_dir", "out")
    return [*map(str, ("--model_name_or_path", model, *files, *more))]


@pytest.fixture(scope="module")
def alone(checkpoints, tmp_path_factory):
    """The tables of single tests of each checkpoint, with the columns of a series."""
    place = tmp_path_factory.mktemp("alone")
    files = [
        write_lines(place / "a.jsonl.gz", [json.dumps({"text": text}) for text in TEXTS]),
        write_lines(place / "b.txt.gz", ["The women drank."]),
    ]
    tables = []
    for name, step in zip(NAMES, (1, 2, 10), strict=True):
        data = DataTrainingArguments(test_file=files, output_dir=str(place / name), seed=3)
        result = finetune_lm.run(ModelArguments(str(checkpoints / name)), data)
        table = result.test_results
        behind = table.columns.get_loc("n_params") + 1
        for column, value in {"tokens_seen": None, "step": step, "revision": name}.items():
            table.insert(behind, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def table_of(directory="out"):
    [path] = Path(directory).glob("*-test_results.csv.gz")
    return load_metrics(path)


def same(table, other):
    pd.testing.assert_frame_equal(table, other, check_dtype=False)


def test_directories(checkpoints, alone, capsys):
    """The numbers are those of single tests."""
    assert main(words(checkpoints / "*", "--seed", 3)) == 0
    assert capsys.readouterr().err.endswith("Results are in out\n")
    table = table_of()
    same(table, alone)
    assert table["model_name"].unique().tolist() == [f"{checkpoints}/{name}" for name in NAMES]
    assert table["original_text"].unique().tolist() == [*TEXTS, "The women drank."]
    assert table.groupby("revision")["surprisal"].sum().nunique() == 3
    assert json.loads(Path("out/run.json").read_text())["state"] == "finished"


def test_revisions(cache, alone, monkeypatch, capsys):
    more = ("--cache_dir", cache, "--seed", 3)
    assert main(words("me/series", "--model_revision", "step*", *more)) == 0
    assert "the Hub cannot be reached, so the revisions of" in capsys.readouterr().err
    table = table_of()
    same(table, alone.assign(model_name="me/series"))
    # A list is taken in its order, and what is in it twice only once.
    asked = []

    def refs(name, token):
        asked.append((name, token))
        branches = [GitRefInfo(n, f"refs/heads/{n}", "0") for n in ("main", "step10", "step2")]
        return GitRefs(branches, [], [GitRefInfo("step1", "refs/tags/step1", "0")])

    monkeypatch.setattr(huggingface_hub, "list_repo_refs", refs)
    shutil.rmtree("out")
    assert main(words("me/series", "--model_revision", "step10", "step?", "step1*", *more)) == 0
    assert asked == [("me/series", False)]
    assert table_of()["revision"].unique().tolist() == ["step10", "step1", "step2"]


def test_a_series_that_was_stopped_and_has_grown(checkpoints, tmp_path, monkeypatch):
    """What was tested is not tested again, down to the batch."""
    place = tmp_path / "mine"
    for name in NAMES[:2]:
        shutil.copytree(checkpoints / name, place / name)
    calls = []
    original = Forward.__call__

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) in stops:
            os.kill(os.getpid(), 15)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", counted)
    stops = ()
    argv = words(place / "step*", "--per_device_test_batch_size", 1)
    assert main(argv) == 0
    whole, n = table_of(), len(calls)
    shutil.rmtree("out")
    calls.clear()
    stops = (n // 2 + 2,)
    assert main(argv) == 143
    stops = ()
    assert json.loads(Path("out/run.json").read_text())["state"] == "interrupted"
    assert main(["--resume", "out"]) == 0
    same(table_of().drop(columns="seed"), whole.drop(columns="seed"))
    assert table_of()["seed"].nunique() == 1
    n_before = len(calls)
    shutil.copytree(checkpoints / "step10", place / "step10")
    assert main(argv) == 0
    assert len(calls) - n_before <= n // 2 + 1
    assert table_of()["revision"].unique().tolist() == NAMES
    assert table_of()["seed"].nunique() == 1
    before = Path(next(Path("out").glob("*.csv.gz"))).read_bytes()
    assert main(argv) == 0
    assert Path(next(Path("out").glob("*.csv.gz"))).read_bytes() == before


def test_one_that_fails_is_named_and_the_others_go_on(checkpoints, tmp_path, capsys):
    place = tmp_path / "mine"
    shutil.copytree(checkpoints, place)
    (place / "step2" / "model.safetensors").write_bytes(b"broken")
    assert main(words(place / "*")) == 1
    told = capsys.readouterr().err
    assert "1 of 3 checkpoints could not be tested" in told
    assert "finetune-lm: error: step2: " in told
    assert "Traceback" not in told
    assert table_of()["revision"].unique().tolist() == ["step1", "step10"]
    record = json.loads(Path("out/run.json").read_text())
    assert (record["state"], list(record["failed"])) == ("failed", ["step2"])
    shutil.copy(checkpoints / "step2" / "model.safetensors", place / "step2")
    assert main(words(place / "*")) == 0
    assert table_of()["revision"].unique().tolist() == NAMES


def test_another_tokenizer_is_an_error(checkpoints, tmp_path, capsys):
    place = tmp_path / "mine"
    shutil.copytree(checkpoints, place)
    path = place / "step2" / "tokenizer.json"
    said = json.loads(path.read_text())
    merges = said["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]
    path.write_text(json.dumps(said))
    assert main(words(place / "*")) == 2
    assert "that of step2 differs from that of step1" in capsys.readouterr().err
    assert not list(Path("out").glob("*.csv.gz"))
    assert main(words(place / "*", "--tokenizer_name", place / "step1")) == 0


def test_revisions_are_taken_out_of_the_cache(cache, tmp_path, capsys):
    own = tmp_path / "cache"
    shutil.copytree(cache, own, symlinks=True)
    repo = own / "models--me--series"
    commit = (repo / "refs" / "step2").read_text()
    (repo / "refs" / "main").write_text(commit)
    more = ("--cache_dir", own, "--drop_cache")
    assert main(words("me/series", "--model_revision", "step1", "step2", *more)) == 0
    told = capsys.readouterr().err
    assert "step1: " in told
    assert "of the cache were freed" in told
    assert sorted(path.name for path in (repo / "refs").iterdir()) == ["main", "step10", "step2"]
    assert len(list((repo / "snapshots").iterdir())) == 2
    # What others share is still there.
    shutil.rmtree("out")
    assert main(words("me/series", "--model_revision", "step10", *more)[:-1]) == 0


MANY = ("--model_revision", "step1", "step2")


def test_mistakes(checkpoints, cache, capsys, tmp_path):
    train = ("--train_file", "b.txt.gz", "--validation_file", "b.txt.gz")
    for argv, told in [
        (words("nowhere/*"), "must match directories with a saved model in each, but nowhere/* ma"),
        (
            words(checkpoints / "*", *MANY),
            "both model_revision and model_name_or_path name several",
        ),
        (words(checkpoints / "step1", *MANY), "has no revisions, but got step1, step2"),
        (words(checkpoints / "*", *train), "a series of checkpoints is only tested"),
        (words("me/series", *MANY, *train), "a series of checkpoints is only tested"),
        (
            words("me/series", "--model_revision", "stage*", "--cache_dir", cache),
            "matches none of its 3: step1, step2, step10 ...",
        ),
        (words("me/other", "--model_revision", "s*"), "the revisions of me/other cannot be listed"),
    ]:
        assert main(argv) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(words(checkpoints / "step1")) == 0
    assert main(words(checkpoints / "*")) == 2
    assert "output_dir must not have results of another run" in capsys.readouterr().err


def test_other_arguments_are_another_series(checkpoints, capsys):
    assert main(words(checkpoints / "step?")) == 0
    assert main(words(checkpoints / "step?", "--append_eos")) == 1
    assert "has a test with other arguments: append_eos was False and is True" in (
        capsys.readouterr().err
    )


def test_preview_shows_the_first(checkpoints, capsys):
    assert main(words(checkpoints / "*", "--preview", 1)) == 0
    assert "drank" in capsys.readouterr().out


def test_where_it_is_by_default(checkpoints, monkeypatch, tmp_path):
    monkeypatch.chdir(checkpoints.parent)
    try:
        model = ModelArguments("checkpoints/step[12]")
        data = DataTrainingArguments(test_file=[str(tmp_path / "b.txt.gz")])
        result = finetune_lm.run(model, data)
        assert result.output_dir == Path("outputs/test_only/checkpoints-series")
        assert result.test_results["revision"].unique().tolist() == ["step1", "step2"]
    finally:
        shutil.rmtree(checkpoints.parent / "outputs", ignore_errors=True)
    with pytest.raises(UserError, match="is only tested"):
        finetune_lm.run(model, DataTrainingArguments(train_file="a", validation_file="b", epochs=1))
