"""The plot is drawn from the figures: what is on it is checked, not how it looks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from finetune_lm.results.loss_history import LossHistory
from finetune_lm.results.plots import save_loss_curves


@pytest.fixture
def figures(monkeypatch):
    saved = []
    savefig = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def history(n_epochs, n_batches, several=False):
    made = LossHistory()
    for epoch in range(n_epochs):
        for batch in range(n_batches):
            losses = {"loss": 3.0 - batch, "OutputsDefaultLoss": 1.0}
            if several:
                losses |= {"KLBaselineLoss": 2.0, "Other": 3.0}
            made.add("train", epoch, losses)
        made.end_epoch("train", epoch, {**losses, "loss": 2.0 + epoch / n_epochs})
        validation = {"loss": 2.0, "OutputsDefaultLoss": 2.0}
        made.add("validation", epoch, validation)
        made.end_epoch("validation", epoch, validation)
    return made


def line(figure, panel, label):
    [found] = [each for each in figure.axes[panel].lines if each.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_the_lines_are_the_means_of_epochs(tmp_path, figures):
    save_loss_curves(tmp_path / "x.pdf", history(4, 2), "title", best_epoch=1)
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    [figure] = figures
    assert len(figure.axes) == 1
    epochs, losses = line(figure, 0, "train")
    assert epochs.tolist() == [0, 1, 2, 3]
    assert losses.tolist() == [2.0, 2.25, 2.5, 2.75]
    assert line(figure, 0, "validation")[1].tolist() == [2.0] * 4
    assert line(figure, 0, "best epoch")[0].tolist() == [1, 1]


def test_a_panel_for_each_loss_whose_name_ends_in_loss(tmp_path, figures):
    save_loss_curves(tmp_path / "x.pdf", history(2, 2, several=True), "title", None)
    labels = [axis.get_ylabel() for axis in figures[0].axes]
    assert labels == ["loss minimised", "OutputsDefaultLoss", "KLBaselineLoss"]


@pytest.mark.parametrize(("n_epochs", "n_batches"), [(1, 1), (1, 5), (40, 1), (1000, 5)])
def test_any_number_of_epochs_and_batches(tmp_path, figures, n_epochs, n_batches):
    save_loss_curves(tmp_path / "x.pdf", history(n_epochs, n_batches), "title", 0)
    epochs, _ = line(figures[0], 0, "train")
    assert len(epochs) == n_epochs
    low, high = figures[0].axes[0].get_xlim()
    assert low < 0
    assert high > n_epochs - 1


def test_batches_are_on_the_plot(tmp_path, figures):
    save_loss_curves(tmp_path / "few.pdf", history(3, 2), "title", None)
    dots = [each for each in figures[0].axes[0].lines if each.get_marker() == "."]
    assert sorted(dots[0].get_ydata().tolist()) == [2.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    save_loss_curves(tmp_path / "many.pdf", history(1500, 2), "title", None)
    assert len(figures[1].axes[0].collections) == 1


def test_equal_plots_are_equal_files(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        save_loss_curves(tmp_path / name, history(2, 2), "title", 1)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
