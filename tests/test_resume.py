"""Runs stopped by signals, and gone on with: the same to the byte as unbroken ones."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

import finetune_lm
from crashing import difference
from finetune_lm import UserError
from finetune_lm.model_modifiers.model_callback import ModelCallback
from finetune_lm.runs import interruption
from finetune_lm.runs.context import Run
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.training import loop
from finetune_lm.training.checkpoints import FORMAT
from finetune_lm.whole_files import checksum, sealed, unsealed
from setups import PROBES, arguments, setup
from stopped_runs import N_STEPS, N_TEST_BATCHES, SHORT, begin, manifests, state, stop

pytest_plugins = ["stopped_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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


def test_numbers_that_come_a_batch_later(whole, signals, monkeypatch):
    """As on a GPU, which is not waited for: stopped in a training, and in a validation."""
    monkeypatch.setattr(Run, "waits_for_numbers", False)
    stop(signals, 2, checkpoint_every=0)
    stop(signals, 3, do=lambda: finetune_lm.resume("parts"))
    finetune_lm.resume("parts")
    assert difference(whole("lm"), Path("parts")) == []


def test_a_signal_behind_the_last_step(monkeypatch):
    """More epochs may follow, for which a checkpoint must have what the optimizer has."""

    class Stops(ModelCallback):
        def __call__(self, epoch, batch):
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def dividing_updates(args, learner):
        yield learner
        learner.optimizer.state.clear()  # as several processes leave it

    monkeypatch.setattr(loop, "dividing_updates", dividing_updates)
    model, data = setup("lm", **SHORT, output_dir="parts")
    with pytest.raises(Interrupted):
        finetune_lm.run(*arguments({**model, "model_callbacks": {"post_training": [Stops]}}, data))
    assert manifests()[-1]["kind"] == "training"
    newest = sorted(Path("parts/checkpoints").iterdir())[-1]
    assert torch.load(newest / "state.pt")["parts"]["optimizer"]["state"]


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
