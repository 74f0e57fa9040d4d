"""Runs gone on with when arguments, data, models or software have changed meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import finetune_lm
from crashing import difference
from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.cli import main
from finetune_lm.data.files import arguments_of_missing_files
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from finetune_lm.whole_files import sealed, unsealed
from helpers import write_lines
from setups import arguments, setup
from stopped_runs import N_STEPS, SHORT, begin, state, stop

pytest_plugins = ["stopped_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def resume_with(kind="lm", model=None, **changed):
    model_settings, data = setup(kind, **{**SHORT, **changed, "output_dir": "parts"})
    return finetune_lm.resume("parts", *arguments({**model_settings, **(model or {})}, data))


FORBIDDEN = {
    "seed": ({"seed": 4}, "seed was 3 and is 4"),
    "lr": (
        {"train_optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.01}},
        "train_optimizer_kwargs.lr was 0.001 and is 0.0001",
    ),
    "batch size": (
        {"per_device_validation_batch_size": 8},
        "per_device_validation_batch_size was 4 and is 8",
    ),
    "fewer epochs": ({"epochs": 1}, r"epochs was 2 and is 1\. epochs can only be raised"),
    "patience": ({"patience": 1}, "patience was None and is 1"),
    "losses": ({"loss_classes": {}}, "loss_classes.train was .*NoisyLoss.* and is .*DefaultLoss"),
    "model": ({"model": {"model_revision": "x"}}, "model_revision was main and is x"),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_arguments_that_matter_cannot_be_others(stopped, case):
    stopped(2)
    before = {p: p.read_bytes() for p in Path("parts").rglob("*.*")}
    changed, message = FORBIDDEN[case]
    with pytest.raises(UserError, match=message):
        resume_with(**changed)
    assert {p: p.read_bytes() for p in Path("parts").rglob("*.*")} == before


def test_arguments_of_no_matter_may_be_others(whole, stopped):
    stopped(2)
    resume_with(
        checkpoint_every=0,
        save_tmp_test_files=False,
        preprocessing_num_workers=1,
        on_nan="skip",
        save_best_model_state_to_disk=False,
    )
    different = set(difference(whole("lm"), Path("parts")))
    kept = {f for f in different if not f.startswith(("model", "tokenizer", "config."))}
    assert kept == set()
    assert "on_nan: skip" in Path("parts/config.yaml").read_text()


def test_more_epochs_and_patience(whole, signals):
    stop(signals, 7, patience=2)
    resume_with(epochs=4, patience=3)
    assert difference(whole("lm", epochs=4, patience=3), Path("parts")) == []


@pytest.mark.parametrize(
    ("schedule", "kwargs", "may"),
    [
        ("linear", {}, False),
        ("cosine", {"num_training_steps": 40}, True),
        ("constant_with_warmup", {"warmup_ratio": 0.5}, False),
        ("constant_with_warmup", {"num_warmup_steps": 3}, True),
        ("reduce_lr_on_plateau", {"patience": 0}, True),
    ],
)
def test_more_epochs_with_a_schedule(schedule, kwargs, may, whole, signals):
    """What was learned so far must be what it would have been."""
    given = {"lr_scheduler": schedule, "lr_scheduler_kwargs": kwargs}
    stop(signals, 7, **given)
    if may:
        resume_with(epochs=4, **given)
        assert difference(whole("lm", epochs=4, **given), Path("parts")) == []
    else:
        with pytest.raises(UserError, match="epochs must stay 2 when the run is resumed, since"):
            resume_with(epochs=4, **given)


def test_no_more_epochs_when_only_testing_is_left(signals):
    stop(signals, N_STEPS + 1)
    with pytest.raises(UserError, match="cannot be raised any more: training ended after 2"):
        resume_with(epochs=4)


def own_data():
    lines = [f"The {noun} has always broken the glass." for noun in ("man", "woman", "boy")]
    train = write_lines(Path("train.txt.gz"), lines, [{"item": i} for i in range(3)])
    check = write_lines(Path("check.txt.gz"), lines[:1])
    return {"train_file": train, "validation_file": check}


@pytest.mark.parametrize("name", ["train.txt.gz", "train_metadata.json.gz", "check.txt.gz"])
def test_changed_data(signals, name):
    data = own_data()
    stop(signals, 2, **data)
    if "metadata" in name:
        write_lines(Path(name), [{"item": i} for i in (0, 1, 7)])
    else:
        n = 3 if name.startswith("train") else 1
        write_lines(Path(name), ["The teacher drank."] * n)
    changed = name.replace("_metadata.json", ".txt")
    with pytest.raises(UserError, match=f"^{changed} must say what it did when the run began"):
        finetune_lm.resume("parts")


def test_data_that_moved(whole, signals, capsys):
    """They count by what they say; in the tables they have the same name."""
    data = own_data()
    stop(signals, 2, **data)
    Path("elsewhere").mkdir()
    for name in ("train.txt.gz", "train_metadata.json.gz"):
        Path(name).rename(Path("elsewhere", name))
    with pytest.raises(UserError) as caught:
        finetune_lm.resume("parts")
    assert caught.value.problems[0] == "there is no file train.txt.gz."
    assert "say where they are now: --resume parts --train_file PATH" in caught.value.problems[1]
    assert main(["--resume", "parts", "--train_file", "elsewhere/train.txt.gz"]) == 0
    said = capsys.readouterr().err
    assert "train_file was train.txt.gz and is elsewhere/train.txt.gz, which says the same." in said
    assert "train_file: elsewhere/train.txt.gz" in Path("parts/config.yaml").read_text()
    unbroken = begin(output_dir="unbroken", **{**data, "train_file": "elsewhere/train.txt.gz"})
    assert unbroken.output_dir.joinpath("metrics.csv.gz").read_bytes() == (
        Path("parts/metrics.csv.gz").read_bytes()
    )


def test_data_by_another_name(signals):
    stop(signals, 2, **own_data())
    Path("check.txt.gz").rename("checks.txt.gz")
    assert main(["--resume", "parts", "--validation_file", "checks.txt.gz"]) == 2


def with_kl(**kwargs):
    """A loss of the run is a KL term on a data file of its own."""
    lines = ["The boy drank.", "The girl drank."]
    write_lines(Path("kl.txt.gz"), lines)
    return {
        "loss_classes": {"train": ["loss_classes.KLBaselineLoss"]},
        "loss_classes_kwargs": {"train": {"KLBaselineLoss": {"dataset": "kl.txt.gz", **kwargs}}},
    }


def test_another_kl_file(signals):
    stop(signals, 2, **with_kl())
    write_lines(Path("kl.txt.gz"), ["The boy drank.", "The girl left."])
    with pytest.raises(UserError, match=r"^kl\.txt\.gz must say what it did when the run began"):
        finetune_lm.resume("parts")
    Path("other.txt.gz").write_bytes(Path("kl.txt.gz").read_bytes())
    name = "--loss_classes_kwargs.train.KLBaselineLoss.dataset"
    assert main(["--resume", "parts", name, "other.txt.gz"]) == 2
    with_kl()
    Path("kl.txt.gz").rename("moved.txt.gz")
    assert main(["--resume", "parts", name, "moved.txt.gz"]) == 0


@pytest.mark.parametrize(
    ("file", "argument"),
    [
        ("train.txt.gz", "train_file"),
        ("check.txt.gz", "validation_file"),
        ("try.txt.gz", "test_file"),
    ],
)
def test_the_argument_of_a_file_that_is_not_there_is_named(signals, file, argument):
    data = own_data()
    data["test_file"] = [write_lines(Path("try.txt.gz"), ["The boy left."]), data["train_file"]]
    stop(signals, 2, **data)
    content = Path(file).read_bytes()
    Path(file).unlink()
    with pytest.raises(UserError) as caught:
        finetune_lm.resume("parts")
    # A problem of a file for each argument that names it.
    *problems, hint = caught.value.problems
    assert set(problems) == {f"there is no file {file}."}
    names = [argument, "test_file"][: 1 + (file == "train.txt.gz")]
    now = " ".join(f"--{name} PATH" for name in sorted(names))
    assert hint == f"If data files have moved, say where they are now: --resume parts {now}"
    # One that is there has not moved, whatever is wrong with it.
    Path(file).write_bytes(content + gzip.compress(b"a\rb\n"))
    with pytest.raises(UserError) as caught:
        finetune_lm.resume("parts")
    assert all("carriage return" in problem for problem in caught.value.problems)


def test_the_argument_of_a_file_of_a_loss_is_named(signals):
    stop(signals, 2, **with_kl())
    Path("kl.txt.gz").rename("moved.txt.gz")
    with pytest.raises(UserError) as caught:
        finetune_lm.resume("parts")
    name = "loss_classes_kwargs.train.KLBaselineLoss"
    assert caught.value.problems == (
        f"{name}: there is no file kl.txt.gz.",
        f"If data files have moved, say where they are now: --resume parts --{name}.dataset PATH",
    )
    assert main(["--resume", "parts", f"--{name}.dataset", "moved.txt.gz"]) == 0
    # A loss that reads files, and does not look for them when its arguments are checked.
    kwargs = {"train": {"OutputsDefaultLoss": {"files": ["gone.txt.gz"], "split": "gone"}}}
    data = DataTrainingArguments(test_file="nowhere.txt.gz", loss_classes_kwargs=kwargs)
    assert arguments_of_missing_files(data) == [
        "loss_classes_kwargs.train.OutputsDefaultLoss.files",
        "test_file",
    ]


def test_an_edited_config(signals):
    stop(signals, 2)
    path = Path("parts/config.yaml")
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.002"))
    with pytest.raises(UserError, match=r"train_optimizer_kwargs\.lr was 0\.001 and is 0\.002"):
        finetune_lm.resume("parts")


MODULE = """
from finetune_lm.loss_classes import OutputsDefaultLoss
{imports}

class MyLoss(OutputsDefaultLoss):
    needs_logits = True

    def __call__(self, outputs, labels):
        return {factor} * outputs.loss
"""


@pytest.fixture
def own_module(monkeypatch):
    """A module of the user's own in the current directory, which imports another."""
    monkeypatch.setattr("sys.path", [*sys.path, str(Path.cwd())])
    Path("my_loss.py").write_text(MODULE.format(imports="from my_factor import F", factor="F"))
    Path("my_factor.py").write_text("F = 1.0")
    yield
    for name in ("my_loss", "my_factor"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["my_loss", "my_factor"])
def test_an_edited_loss(signals, own_module, name):
    import my_loss

    stop(signals, 2, loss_classes={"train": [my_loss.MyLoss]})
    path = Path(f"{name}.py")
    path.write_text(path.read_text() + "\n# edited\n")
    with pytest.raises(UserError, match=f"^{name} must be the program that it was .* its source"):
        finetune_lm.resume("parts")


def own_model():
    builtin = Path(finetune_lm.__file__).parent / "models" / "builtin"
    shutil.copytree(builtin / "tiny-lm", "mine")


def change_one_weight(path="mine/model.safetensors"):
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    flat = weights[name].view(-1)
    flat[len(flat) // 2 + 1] *= 1.01
    save_file(weights, path, {"format": "pt"})


def change_config():
    path = Path("mine/config.json")
    config = {**json.loads(path.read_text()), "attn_pdrop": 0.5, "layer_norm_epsilon": 1e-3}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_one_weight, "its weights have changed"),
        (change_config, "its configuration has changed"),
    ],
)
def test_a_changed_model(signals, change, told):
    own_model()
    model, data = setup("lm", **{**SHORT, "output_dir": "parts"})
    model["model_name_or_path"] = "mine"
    signals({2: [signal.SIGTERM]})
    with pytest.raises(Interrupted):
        finetune_lm.run(*arguments(model, data))
    signals({})
    change()
    table = Path("parts/metrics.csv.gz").read_bytes()
    with pytest.raises(UserError, match=f"model_name_or_path must be the model .*{told}"):
        finetune_lm.resume("parts")
    assert Path("parts/metrics.csv.gz").read_bytes() == table


@pytest.mark.parametrize("content", [None, "{", "[]", '{"sessions": 3}'])
def test_a_run_without_its_record(whole, signals, capsys, content):
    stop(signals, 9)
    Path("parts/run.json").unlink()
    if content is not None:
        Path("parts/run.json").write_text(content)
    finetune_lm.resume("parts")
    assert capsys.readouterr().err.count("is resumed from what its last checkpoint says") == 1
    assert difference(whole("lm"), Path("parts")) == []
    assert state()["state"] == "finished"


def test_a_table_that_is_cut_while_the_run_writes_it(signals, monkeypatch):
    """As by a script that empties logs. The rows that are lost are not made up for in silence."""
    original = Forward.__call__
    calls = []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            os.truncate("parts/metrics.csv.gz", 100)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(UserError, match="another program has changed it while the run"):
        begin()
    assert Path("parts/metrics.csv.gz").stat().st_size == 100


def unseeded(inputs, tokenizer):
    """Masks another token each time, whatever the seed."""
    ids = inputs["input_ids"].clone()
    ids[:, 1] = 100 + next(_numbers)
    return {**inputs, "input_ids": ids}


_numbers = iter(range(1000))


def test_preprocessing_that_does_not_follow_from_the_seed(signals):
    functions = {"data_preprocessing_fn": {"train": unseeded}}
    stop(signals, 2, **functions)
    with pytest.raises(
        UserError, match=r"flomped_active\.txt\.gz must give the tokens that it gave"
    ):
        resume_with(**functions)


def test_other_software_is_warned_of(stopped, capsys):
    stopped(2)
    record = unsealed(Path("parts/run.json"))
    record["versions"]["torch"] = "1.0"
    Path("parts/run.json").write_text(sealed(record))
    finetune_lm.resume("parts")
    assert "began with other software or hardware (torch 1.0 -> 2." in capsys.readouterr().err
