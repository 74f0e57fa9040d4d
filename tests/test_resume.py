"""Runs stopped by signals, and gone on with: the same to the byte as unbroken ones."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

import finetune_lm
from crashing import difference
from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.cli import main
from finetune_lm.data.files import arguments_of_missing_files
from finetune_lm.runs import interruption
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from finetune_lm.training.checkpoints import FORMAT
from finetune_lm.whole_files import checksum, sealed, unsealed
from helpers import write_lines
from setups import PROBES, arguments, setup

SHORT = {"epochs": 2, "eval_before_training": False, "max_test_samples": 6}
N_STEPS = 2 * (3 + 2)
N_TEST_BATCHES = 2


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The output directory of an unbroken run of each kind of model, made when first asked for."""
    runs = {}

    def get(kind, **changed):
        key = (kind, json.dumps(changed))
        if key not in runs:
            place = tmp_path_factory.mktemp(kind) / "whole"
            model, data = setup(kind, **{**SHORT, **changed, "output_dir": str(place)})
            runs[key] = finetune_lm.run(*arguments(model, data)).output_dir
        return runs[key]

    return get


@pytest.fixture
def signals(monkeypatch):
    """Sends this process signals while the model is at work: by number of the forward pass."""
    plan, calls = {}, []
    original = Forward.__call__

    def forward(*args, **kwargs):
        calls.append(1)
        for number in plan.get(len(calls), ()):
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)

    def set_plan(new):
        plan.clear()
        plan.update(new)
        calls.clear()
        return calls

    return set_plan


def begin(kind="lm", output_dir="parts", **changed):
    model, data = setup(kind, **{**SHORT, **changed, "output_dir": output_dir})
    return finetune_lm.run(*arguments(model, data))


def stop(signals, step, number=signal.SIGTERM, do=begin, **changed):
    signals({step: [number]})
    with pytest.raises(Interrupted) as caught:
        do(**changed)
    signals({})
    return caught.value


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Runs that were stopped at a step, for all tests that need no more of it."""
    return tmp_path_factory.mktemp("stopped")


@pytest.fixture
def stopped(signals, kept):
    """Puts a run that was stopped at a step where `begin` would leave it."""

    def put(step):
        if not (kept / str(step)).exists():
            stop(signals, step)
            shutil.move("parts", kept / str(step))
        shutil.copytree(kept / str(step), "parts")

    return put


def state():
    return json.loads(Path("parts/run.json").read_text())


def manifests(output_dir="parts"):
    paths = sorted(Path(output_dir, "checkpoints").glob("*/manifest.json"))
    return [json.loads(path.read_text()) for path in paths]


# While it learns, is validated and is tested; and at the beginning of each, behind a checkpoint.
@pytest.mark.parametrize(("step", "every"), [(2, 0), (5, 0), (12, 0), (1, 1), (6, 1), (11, 1)])
def test_a_signal_at_a_step(whole, signals, capsys, step, every):
    stopped = stop(signals, step, checkpoint_every=every)
    assert stopped.signal_number == signal.SIGTERM
    assert stopped.output_dir == Path("parts")
    assert state()["state"] == "interrupted"
    # Nothing is done twice: what is left is what an unbroken run would still have done.
    calls = signals({})
    result = finetune_lm.resume("parts")
    assert len(calls) == N_STEPS + N_TEST_BATCHES - step
    assert difference(whole("lm"), Path("parts")) == []
    assert "warning" not in capsys.readouterr().err
    assert (result.best_epoch, result.best_loss) == (
        state()["best_epoch"],
        state()["best_validation_loss"],
    )
    assert not Path("parts/checkpoints").exists()
    assert not Path("parts/.lock").exists()


@pytest.mark.parametrize("kind", ["mlm", "seq2seq"])
def test_other_kinds_with_masks_drawn_for_each_batch(whole, signals, kind):
    """Stopped at steps 2, 4, 8 and 11."""
    stop(signals, 2, signal.SIGUSR1, kind=kind, checkpoint_every=0)
    for n_steps in (2, 4, 3):
        stop(signals, n_steps, signal.SIGUSR1, do=lambda: finetune_lm.resume("parts"))
    finetune_lm.resume("parts")
    assert difference(whole(kind), Path("parts")) == []


def test_stopped_at_every_step(whole, signals, capsys):
    """Each process does one step and is stopped; by their number none is done twice."""
    stop(signals, 1, checkpoint_every=0)
    for _ in range(N_STEPS + N_TEST_BATCHES - 1):
        stop(signals, 1, signal.SIGINT, do=lambda: finetune_lm.resume("parts"))
    finetune_lm.resume("parts")
    assert difference(whole("lm"), Path("parts")) == []
    assert "warning" not in capsys.readouterr().err
    sessions = state()["sessions"]
    assert [s["state"] for s in sessions] == ["interrupted"] * (len(sessions) - 1) + ["finished"]
    assert len(sessions) == N_STEPS + N_TEST_BATCHES + 1
    assert state()["seconds"]["total"] >= state()["seconds"]["training"] > 0


def test_the_epoch_before_training_too(whole, signals):
    stop(signals, 1, checkpoint_every=0, eval_before_training=True)
    assert manifests()[0]["position"] == "epoch -1, validation batch 1"
    finetune_lm.resume("parts")
    assert difference(whole("lm", eval_before_training=True), Path("parts")) == []


def test_what_a_checkpoint_does_not_know_of_is_lost(whole, signals):
    """The comparison above can fail: here a generator is in no checkpoint."""
    forgetful = {"loss_classes": {"train": ["stateful.ForgetfulNoisyLoss"]}}
    stop(signals, 2, **forgetful)
    finetune_lm.resume("parts")
    assert "metrics.csv.gz" in difference(whole("lm", **forgetful), Path("parts"))


def test_a_second_ctrl_c_stops_at_once(whole, signals, monkeypatch):
    monkeypatch.setattr(interruption, "MOMENT_SECONDS", -1)  # one comes a moment after the other
    signals({3: [signal.SIGINT, signal.SIGINT]})
    with pytest.raises(Interrupted) as caught:
        begin()
    assert caught.value.at_once
    metrics = pd.read_csv("parts/metrics.csv.gz")
    assert set(zip(metrics["epoch"], metrics["batch_number"], strict=True)) == {(0, 0), (0, 1)}
    assert not Path("parts/model").exists()
    assert manifests()[-1]["kind"] == "beginning"
    signals({})
    finetune_lm.resume("parts")
    assert difference(whole("lm"), Path("parts")) == []


def test_two_checkpoints_are_kept_and_the_best_weights_written_once(signals):
    stop(signals, 5 * 3 + 1, epochs=6, train_optimizer_kwargs={"lr": 0.5})
    folders = sorted(Path("parts/checkpoints").iterdir())
    assert len(folders) == 2
    for folder, manifest in zip(folders, manifests(), strict=True):
        assert sorted(p.name for p in folder.iterdir()) == sorted(
            ["manifest.json", *manifest["files"]]
        )
    # With such a learning rate it only gets worse after the first epoch.
    assert [m["best_epoch"] for m in manifests()] == [manifests()[0]["best_epoch"]] * 2
    best = [folder / "best.safetensors" for folder in folders]
    assert best[0].samefile(best[1])


@pytest.mark.parametrize("file", ["state.pt", "model.safetensors", "best.safetensors"])
@pytest.mark.parametrize("damage", ["shorter", "other", "gone"])
def test_a_damaged_checkpoint_is_not_used(whole, stopped, capsys, file, damage):
    stopped(9)
    folders = sorted(Path("parts/checkpoints").iterdir())
    path = folders[-1] / file
    content = path.read_bytes()
    path.unlink()  # the best weights may be the same file as those of the checkpoint before
    if damage != "gone":
        changed = bytes([content[-1] ^ 1])
        path.write_bytes(content[:-1] + (b"" if damage == "shorter" else changed))
    finetune_lm.resume("parts")
    said = capsys.readouterr().err
    assert f"warning: checkpoint {folders[-1]} is damaged" in said
    assert "Resuming the run in parts from epoch 1." in said
    assert difference(whole("lm"), Path("parts")) == []


@pytest.mark.parametrize(
    "content", ['{"format": null}', f'{{"format": {FORMAT}}}', "{}", "[]", "3"]
)
def test_a_manifest_that_says_something_odd(whole, stopped, capsys, content):
    stopped(9)
    last = sorted(Path("parts/checkpoints").iterdir())[-1]
    (last / "manifest.json").write_text(content)
    finetune_lm.resume("parts")
    assert f"warning: checkpoint {last} is damaged" in capsys.readouterr().err
    assert difference(whole("lm"), Path("parts")) == []


def test_all_checkpoints_damaged(stopped):
    stopped(9)
    for path in Path("parts/checkpoints").glob("*/manifest.json"):
        path.write_text("{")
    table = Path("parts/metrics.csv.gz").read_bytes()
    with pytest.raises(UserError, match="all in parts/checkpoints are damaged"):
        finetune_lm.resume("parts")
    assert Path("parts/metrics.csv.gz").read_bytes() == table


def test_a_checkpoint_of_another_version(stopped):
    stopped(9)
    for path in Path("parts/checkpoints").glob("*/manifest.json"):
        path.write_text(sealed({**unsealed(path), "format": 99}))
    with pytest.raises(UserError, match="written by another version of finetune-lm"):
        finetune_lm.resume("parts")


def test_nothing_in_a_checkpoint_is_run(stopped):
    import torch

    class Evil:
        def __reduce__(self):
            return (Path.touch, (Path("evil"),))

    stopped(9)
    for folder in Path("parts/checkpoints").iterdir():
        torch.save({"origin": Evil()}, folder / "state.pt")
        manifest = unsealed(folder / "manifest.json")
        manifest["files"]["state.pt"] = checksum(folder / "state.pt")
        (folder / "manifest.json").write_text(sealed(manifest))
    with pytest.raises(UserError, match="are damaged"):
        finetune_lm.resume("parts")
    assert not Path("evil").exists()


def test_a_finished_run_is_left_as_it_is(capsys):
    result = begin()
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path("parts").rglob("*.*")}
    again = finetune_lm.resume("parts")
    assert "The run in parts is finished; there is nothing left to do." in capsys.readouterr().err
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path("parts").rglob("*.*")} == before
    assert (again.best_epoch, again.best_loss) == (result.best_epoch, result.best_loss)
    pd.testing.assert_frame_equal(again.test_results, result.test_results)
    model, data = arguments(*setup("lm", **{**SHORT, "epochs": 5, "output_dir": "parts"}))
    with pytest.raises(
        UserError,
        match=r"a finished run cannot be resumed with other arguments.* epochs was 2 and is 5",
    ):
        finetune_lm.resume("parts", model, data)


# What has changed in the meantime


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


# Where there is nothing to go on with


def test_no_such_run(tmp_path):
    with pytest.raises(UserError, match="there is no nowhere"):
        finetune_lm.resume("nowhere")
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no config\.yaml"):
        finetune_lm.resume("empty")
    assert list(Path("empty").iterdir()) == []


def test_rows_but_no_checkpoint(stopped):
    stopped(9)
    shutil.rmtree("parts/checkpoints")
    table = Path("parts/metrics.csv.gz").read_bytes()
    with pytest.raises(UserError, match=r"but parts has none.*To do the run again: --config parts"):
        finetune_lm.resume("parts")
    assert Path("parts/metrics.csv.gz").read_bytes() == table


def test_neither_rows_nor_checkpoint(whole, stopped):
    """The run had not come to its first epoch's end, so nothing is lost by beginning again."""
    stopped(2)
    shutil.rmtree("parts/checkpoints")
    for name in ("metrics", "words"):
        Path(f"parts/{name}.csv.gz").write_bytes(b"")
    finetune_lm.resume("parts")
    assert difference(whole("lm"), Path("parts")) == []


def test_another_table_than_the_runs_own(stopped):
    stopped(9)
    table = Path("parts/metrics.csv.gz")
    content = table.read_bytes()
    for damaged in (content[:1000], b"x" + content[1:], None):
        table.unlink(missing_ok=True)
        if damaged is not None:
            table.write_bytes(damaged)
        with pytest.raises(UserError, match=r"must begin with the .* bytes that the run had"):
            finetune_lm.resume("parts")


def test_a_new_run_does_not_take_the_place_of_one_that_was_stopped(stopped):
    stopped(9)
    with pytest.raises(UserError, match="To resume the run that was stopped there: --resume"):
        begin()


def test_two_processes_at_a_time(stopped, monkeypatch):
    from finetune_lm.runs.lock import RunLock

    stopped(9)
    with RunLock(Path("parts")), pytest.raises(UserError, match="must not be used by two runs"):
        finetune_lm.resume("parts")
    Path("other").mkdir()
    with RunLock(Path("other")), pytest.raises(UserError, match=f"process {os.getpid()} on "):
        begin(output_dir="other")
    assert state()["state"] == "interrupted"
    finetune_lm.resume("parts")


# Only testing


def test_a_test_goes_on_where_it_was(whole, signals):
    model, data = setup("mlm", output_dir="parts", max_test_samples=14, seed=5)
    for name in ("train_file", "validation_file", "loss_classes", "checkpoint_every"):
        del data[name]
    test_only = arguments(model, data)
    signals({2: [signal.SIGTERM]})
    with pytest.raises(Interrupted) as caught:
        finetune_lm.run(*test_only)
    assert caught.value.output_dir == Path("parts")
    calls = signals({})
    resumed = finetune_lm.resume("parts")
    assert len(calls) == 4 - 2
    data["output_dir"] = "whole"
    unbroken = finetune_lm.run(*arguments(model, data))
    assert resumed.test_results_path.read_bytes() == unbroken.test_results_path.read_bytes()
    assert not list(Path("parts").glob("tmp-*"))


def test_without_temporary_files_the_test_is_done_again_but_not_the_training(whole, signals):
    stop(signals, N_STEPS + 1, save_tmp_test_files=False)
    assert manifests()[-1]["kind"] == "trained"
    assert set(manifests()[-1]["files"]) == {"state.pt", "best.safetensors"}
    calls = signals({})
    finetune_lm.resume("parts")
    assert len(calls) == N_TEST_BATCHES
    assert difference(whole("lm"), Path("parts")) == []


STOPPED_PROBES = {
    # Forward passes of the model in each process, of which 6 are a pass over the probes.
    "lm": ({}, [1, 4, 10, 7]),
    "mlm": ({"probe_every_steps": 2}, [5, 4, 6, 11]),
    "seq2seq": ({"probe_every_steps": 3}, [6, 12, 3, 2]),
}


@pytest.mark.parametrize("kind", STOPPED_PROBES)
def test_signals_in_the_middle_of_probes(whole, signals, capsys, kind):
    """Before the training, within an epoch and after one; another one when it has gone on."""
    when, steps = STOPPED_PROBES[kind]
    probed = {**PROBES, **when, "test_file": None}
    directory = whole(kind, **probed)
    positions = []
    for number, step in enumerate(steps):
        do = begin if number == 0 else lambda **_: finetune_lm.resume("parts")
        stop(signals, step, do=do, **({"kind": kind, **probed} if number == 0 else {}))
        positions.append(manifests()[-1]["position"])
    finetune_lm.resume("parts")
    assert sum("in the middle of the probes" in position for position in positions) >= 2
    assert difference(directory, Path("parts")) == []
    record = state()
    assert record["probes"]["passes"] == len(finetune_lm.load_probes("parts")["step"].unique())
    assert "probes before the training: 100%" in capsys.readouterr().err


def test_signals_where_pairs_are_scored(whole, signals):
    """In the middle of a data set of probes, between two, and in a validation judged by pairs."""
    pairs = Path(__file__).parent.parent / "data" / "pairs"
    judged = {
        "validation_file": str(pairs / "agreement.jsonl"),
        "max_validation_samples": 6,
        "select_by": "pair_accuracy",
        "probe_file": [str(pairs / "agreement.jsonl"), str(pairs / "datives.txt")],
        "max_probe_samples": 4,
        "per_device_probe_batch_size": 2,
        "contrasts": {"order": "prepositional - double_object"},
        "test_file": None,
    }
    directory = whole("lm", **judged)
    positions = []
    for number, step in enumerate([2, 5, 4, 8, 9]):
        do = begin if number == 0 else lambda **_: finetune_lm.resume("parts")
        stop(signals, step, do=do, **(judged if number == 0 else {}))
        positions.append(manifests()[-1]["position"])
    finetune_lm.resume("parts")
    assert sum("in the middle of the probes" in position for position in positions) >= 2
    assert sum("validation batch" in position for position in positions) >= 1
    assert difference(directory, Path("parts")) == []
    assert len(pd.read_csv("parts/probe_summary.csv")) == 2 * 3
