"""What is shown of a run's progress: on terminals of any width, and in a pipe."""

from __future__ import annotations

import fcntl
import math
import os
import pty
import re
import struct
import sys
import termios

import pytest

import finetune_lm
from finetune_lm import DataTrainingArguments
from finetune_lm.evaluation.loss_units import loss_units
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.recording.progress_bars import EpochBar, TestBar
from finetune_lm.recording.recorder import EpochResult, ProbePass, Recorders
from finetune_lm.training.early_stopping import EarlyStopping
from setups import arguments, setup

ONE = {"loss": 3.41234, "OutputsDefaultLoss": 3.41234}
SEVERAL = {"loss": 13.5, "OutputsDefaultLoss": 3.25, "KLBaselineLoss": 10.25}


class Terminal:
    """A terminal of a width, in place of stderr."""

    def __init__(self, monkeypatch, width):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stderr", self.stream)

    def written(self):
        """All that was written, and the lines that it makes: what \\r writes over is there, too."""
        self.stream.flush()
        os.set_blocking(self.master, False)
        data = b""
        while True:
            try:
                block = os.read(self.master, 2**16)
            except BlockingIOError:
                break
            if not block:
                break
            data += block
        # What moves the cursor is not seen.
        text = re.sub(r"\x1b\[[A-Z0-9]*", "", data.decode())
        return [line.rstrip() for line in re.split("[\r\n]+", text) if line.strip()]


def show(n_epochs=250, epochs=(0, 8, 248, 249), means=ONE, unit="nats/token", patience=None):
    bar = EpochBar(n_epochs, unit)
    with Recorders(bar).listening(0):
        for epoch in epochs:
            validation = {"loss": 3.5, "L": 3.5}
            bar.epoch(EpochResult(epoch, means, validation, (epoch, 3.498765), patience))


@pytest.mark.parametrize("means", [ONE, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("patience", [None, 10])
def test_at_80_columns_nothing_is_cut(monkeypatch, means, patience):
    terminal = Terminal(monkeypatch, 80)
    show(means=means, patience=patience)
    lines = terminal.written()
    assert max(map(len, lines)) < 80
    train = "3.412" if means is ONE else "13.50"
    for epoch in (0, 8, 248, 249):
        start = f"epoch {epoch} ({epoch + 1}/250) train {train} validation 3.500 best 3.499"
        [line, *_] = [each for each in lines if each.startswith(start)]
        assert "nats/token" in line
        assert "OutputsDefaultLoss" not in line


@pytest.mark.parametrize("width", [20, 40, 60, 70, 79, 80, 81, 100, 120, 200, 300])
@pytest.mark.parametrize("means", [ONE, SEVERAL], ids=["one", "several"])
def test_what_there_is_room_for_is_shown_whole(monkeypatch, width, means):
    terminal = Terminal(monkeypatch, width)
    show(means=means, patience=10)
    line = next(each for each in terminal.written() if each.startswith("epoch 248 "))
    assert len(line) < width
    shown = {
        "epoch 248 (249/250)": 20,
        "validation 3.500": 40,
        "best 3.499": 60,
        "train": 60,
        "nats/token": 79,
        "left": 100,
        "at epoch 248": 120,
        "patience 10": 120,
        "OutputsDefaultLoss 3.250, KLBaselineLoss 10.25": 200,
    }
    for text, least in shown.items():
        if "Loss" in text and means is ONE:
            assert text not in line
        elif width >= least:
            assert text in line
    # What is there is not cut.
    words = re.sub(r" +[█▏▎▍▌▋▊▉ ]*$", "", line)
    assert not words.endswith((",", "("))
    assert words.count("(") == words.count(")")


@pytest.mark.parametrize("patience", [None, 3])
def test_in_a_pipe_each_epoch_is_a_line(capsys, patience):
    show(3, range(3), SEVERAL, patience=patience)
    written = capsys.readouterr().err
    assert "\r" not in written
    more = "" if patience is None else ", patience 3"
    assert [re.sub(r", \d+:\d\d left", "", line) for line in written.splitlines()] == [
        f"epoch {epoch} ({epoch + 1}/3): train 13.50 (OutputsDefaultLoss 3.250, KLBaselineLoss "
        f"10.25), validation 3.500 (L 3.500), best 3.499 at epoch {epoch}, nats/token{more}"
        for epoch in range(3)
    ]
    assert " left" not in written.splitlines()[-1]
    assert all(" left" in line for line in written.splitlines()[:-1])


def test_no_best_epoch_yet_and_no_unit(capsys):
    bar = EpochBar(2)
    with Recorders(bar).listening(0):
        means, nothing = {"loss": 123.456, "MyLoss": 1}, dict.fromkeys(("loss", "MyLoss"), math.nan)
        bar.epoch(EpochResult(0, means, nothing, (None, math.inf), None))
    line = re.sub(r", \d+:\d\d left", "", capsys.readouterr().err)
    assert line == "epoch 0 (1/2): train 123.5, validation nan\n"


def test_the_best_epoch_has_the_number_that_it_was_chosen_by(capsys):
    """A lower loss than that of the best epoch is no contradiction then."""
    stopping = EarlyStopping(select_by="pair_accuracy")
    stopping.update(0, 4.8, -0.75)
    stopping.update(1, 4.3, -0.5)
    bar = EpochBar(2, "nats/token")
    with Recorders(bar).listening(0):
        bar.epoch(EpochResult(1, ONE, ONE, stopping.best, None, None, stopping.select_by))
    assert "best pair_accuracy 0.750 at epoch 0" in capsys.readouterr().err


def show_probes(**kwargs):
    bar = EpochBar(2, "nats/token", **kwargs)
    with Recorders(bar).listening(0):
        for epoch in (-1, 0):
            at = ProbePass(epoch, epoch + 1)
            for share in (0.04, 0.55, 0.58, 1.0):
                bar.probe(None, at, share)
            bar.probes_over(at)
            if epoch == 0:
                bar.epoch(EpochResult(0, ONE, ONE, (0, 3.4), None))


def test_probes_in_a_pipe_are_told_before_the_training_only(capsys):
    show_probes()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["probes before the training: 55%", "probes before the training: 100%"]
    assert len(lines) == 3
    assert lines[2].startswith("epoch 0 (1/2): train 3.412")
    show_probes(in_passing=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [20, 80])
def test_probes_on_a_terminal_take_the_place_of_the_line_while_they_last(monkeypatch, width):
    terminal = Terminal(monkeypatch, width)
    show_probes()
    written = terminal.written()
    assert max(map(len, written)) < width
    lines = [re.sub(" +[█▏▎▍▌▋▊▉ ]*$", "", line) for line in written]
    before, epoch = ("before the training: ", "epoch 0 (1/2): ") if width > 20 else ("", "")
    first = lines.index(f"{before}probes 4%")
    assert lines[first + 3] == f"{before}probes 100%"
    assert lines[first + 4] == "epoch 0 (0/2)"
    assert lines[first + 5] == f"{epoch}probes 4%"
    assert lines[-1].startswith("epoch 0 (1/2)")


def test_one_of_many_trainings_is_shown_on_a_terminal_only(capsys, monkeypatch):
    bar = EpochBar(2, in_passing=True)
    with Recorders(bar).listening(0):
        bar.epoch(EpochResult(0, ONE, ONE, (0, 3.4), None))
    assert capsys.readouterr().err == ""
    terminal = Terminal(monkeypatch, 80)
    bar = EpochBar(2, in_passing=True)
    with Recorders(bar).listening(0):
        bar.epoch(EpochResult(0, ONE, ONE, (0, 3.4), None))
    assert any(line.startswith("epoch 0 (1/2)") for line in terminal.written())


@pytest.mark.parametrize(("n_batches", "n_lines"), [(1, 1), (4, 4), (10, 10), (1234, 10)])
def test_a_test_in_a_pipe_has_a_line_for_each_tenth(capsys, n_batches, n_lines):
    with TestBar(n_batches) as bar:
        for _ in range(n_batches):
            bar.batch_is_over()
    written = capsys.readouterr().err
    assert "\r" not in written
    lines = written.splitlines()
    assert len(lines) == n_lines
    assert lines[-1] == f"testing: batch {n_batches} of {n_batches} (100 %)"
    shares = [int(re.search(r"\((\d+) %\)", line)[1]) for line in lines]
    # The first batch with which another tenth is done.
    tenths = [-(-n_batches * tenth // 10) for tenth in range(1, 11)]
    assert shares == [100 * batch // n_batches for batch in sorted(set(tenths))]


def test_a_whole_run_in_a_pipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    changed = {"epochs": 2, "loss_classes": {}, "output_dir": "out"}
    model, data = setup("lm", **changed)
    finetune_lm.run(*arguments(model, data))
    written = capsys.readouterr().err
    assert "\r" not in written.replace("\r\n", "\n")
    lines = written.splitlines()
    shown = [line for line in lines if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in shown] == ["epoch 0 (1/2)", "epoch 1 (2/2)"]
    assert all("nats/token" in line for line in shown)
    tested = [line for line in lines if line.startswith("testing: ")]
    assert tested[-1] == "testing: batch 3 of 3 (100 %)"
    assert len(tested) == 3


class Own(OutputsDefaultLoss):
    """Who computes otherwise has another unit, or none that is known."""

    def __call__(self, outputs, labels):
        return outputs.loss.exp()


class OwnWithUnit(Own):
    unit = "perplexity"


class Renamed(OutputsDefaultLoss):
    pass


def squared(losses):
    return (losses**2).sum()


@pytest.mark.parametrize(
    ("train", "validation", "reduce", "expected"),
    [
        ([OutputsDefaultLoss], [OutputsDefaultLoss], None, "nats/token"),
        ([Renamed], [OutputsDefaultLoss], None, "nats/token"),
        ([OutputsDefaultLoss, KLBaselineLoss], [OutputsDefaultLoss], None, "nats"),
        ([KLBaselineLoss], [KLBaselineLoss], sum, "nats"),
        ([Own], [Own], None, None),
        ([OwnWithUnit], [OwnWithUnit], None, "perplexity"),
        ([OutputsDefaultLoss], [Own], None, None),
        ([OutputsDefaultLoss], [OutputsDefaultLoss], squared, None),
        ([lambda model, tokenizer: None], [OutputsDefaultLoss], None, None),
    ],
)
def test_units(train, validation, reduce, expected):
    more = {} if reduce is None else {"loss_reduction_fns": {"train": reduce, "validation": reduce}}
    args = DataTrainingArguments(
        train_file="a",
        validation_file="b",
        loss_classes={"train": train, "validation": validation},
        **more,
    )
    units = loss_units(args)
    assert units["loss"] == expected
    assert units.get("OutputsDefaultLoss", "nats/token") == "nats/token"
    assert units.get("KLBaselineLoss", "nats") == "nats"
