"""The plot is drawn from the figures: what is on it is checked, not how it looks."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from finetune_lm.recording.curves import save_loss_curves
from finetune_lm.recording.loss_history import LossHistory

pytestmark = pytest.mark.usefixtures("drawn_pages")


@pytest.fixture
def figures(monkeypatch):
    saved = []
    savefig = Figure.savefig

    def keep(self, *args, **kwargs):
        saved.append(self)
        savefig(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def history(n_epochs, n_batches, several=False, n_validation=1, first=0):
    made = LossHistory()
    for epoch in range(first, n_epochs):
        for batch in range(n_batches if epoch >= 0 else 0):
            losses = {"loss": 3.0 - batch, "OutputsDefaultLoss": 1.0}
            if several:
                losses |= {"KLBaselineLoss": 2.0, "Other": 3.0}
            made.add("train", epoch, batch, losses)
        if epoch >= 0:
            made.pass_over("train", epoch, {**losses, "loss": 2.0 + epoch / n_epochs})
        for batch in range(n_validation):
            losses = {"loss": 2.0 + batch, "OutputsDefaultLoss": 2.0}
            made.add("validation", epoch, batch, losses)
        made.pass_over("validation", epoch, {"loss": 2.0, "OutputsDefaultLoss": 2.0})
    return made


def line(figure, panel, label):
    [found] = [each for each in figure.axes[panel].lines if each.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


TRAIN, VALIDATION = "train: mean of an epoch", "validation: mean at the end of an epoch"


def test_the_lines_are_the_means_of_epochs(tmp_path, figures):
    save_loss_curves(tmp_path / "x.pdf", history(4, 2), "title", best_epoch=1)
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    [figure] = figures
    assert len(figure.axes) == 1
    places, losses = line(figure, 0, TRAIN)
    assert losses.tolist() == [2.0, 2.25, 2.5, 2.75]
    # The mean of epoch 0 is in its middle; validation comes after it, and so does the best epoch.
    assert places.tolist() == [0.5, 1.5, 2.5, 3.5]
    places, losses = line(figure, 0, VALIDATION)
    assert places.tolist() == [1, 2, 3, 4]
    assert losses.tolist() == [2.0] * 4
    assert line(figure, 0, "best epoch (1)")[0].tolist() == [2, 2]


def test_a_panel_for_each_loss_whose_name_ends_in_loss(tmp_path, figures):
    units = {"loss": "nats", "OutputsDefaultLoss": "nats/token", "KLBaselineLoss": None}
    save_loss_curves(tmp_path / "x.pdf", history(2, 2, several=True), "title", None, units)
    labels = [axis.get_ylabel() for axis in figures[0].axes]
    assert labels == ["loss minimised (nats)", "OutputsDefaultLoss (nats/token)", "KLBaselineLoss"]


@pytest.mark.parametrize(("n_epochs", "n_batches"), [(1, 1), (1, 5), (40, 1), (1000, 5)])
def test_any_number_of_epochs_and_batches(tmp_path, figures, n_epochs, n_batches):
    save_loss_curves(tmp_path / "x.pdf", history(n_epochs, n_batches), "title", 0)
    places, _ = line(figures[0], 0, TRAIN)
    assert len(places) == n_epochs
    low, high = figures[0].axes[0].get_xlim()
    assert low < 0.5
    assert high > n_epochs


def test_batches_are_where_they_were_measured(tmp_path, figures):
    save_loss_curves(tmp_path / "few.pdf", history(2, 4, n_validation=2), "title", None)
    places, losses = line(figures[0], 0, "train: a batch")
    # Before any update, after one of four, ...
    assert places.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert losses.tolist() == [3.0, 2.0, 1.0, 0.0] * 2
    places, losses = line(figures[0], 0, "validation: a batch")
    assert places.tolist() == [1, 1, 2, 2]
    assert losses.tolist() == [2.0, 3.0] * 2


def test_a_batch_that_was_skipped_leaves_its_place(tmp_path, figures):
    made = LossHistory()
    for epoch, batch in ((0, 0), (0, 1), (0, 3), (1, 0), (1, 1)):
        made.add("train", epoch, batch, {"loss": 1.0, "MyLoss": 1.0})
    again = LossHistory()
    again.load_state_dict(made.state_dict())
    save_loss_curves(tmp_path / "x.pdf", again, "title", None)
    assert line(figures[0], 0, "train: a batch")[0].tolist() == [0, 0.25, 0.75, 1, 1.25]


def test_before_the_training(tmp_path, figures):
    save_loss_curves(tmp_path / "x.pdf", history(2, 2, first=-1), "title", None)
    places, losses = line(figures[0], 0, VALIDATION)
    assert places.tolist() == [0, 1, 2]
    assert losses.tolist() == [2.0, 2.0, 2.0]
    assert line(figures[0], 0, TRAIN)[0].tolist() == [0.5, 1.5]


def test_many_batches_are_a_band(tmp_path, figures):
    save_loss_curves(tmp_path / "many.pdf", history(1500, 2), "title", None)
    [band] = figures[0].axes[0].collections
    assert band.get_label() == "train: lowest to highest batch"


def test_all_that_is_drawn_is_in_the_legend(tmp_path, figures):
    made = history(2, 4, several=True, n_validation=2)
    save_loss_curves(tmp_path / "x.pdf", made, "title", best_epoch=1)
    [legend] = figures[0].legends
    assert sorted(text.get_text() for text in legend.get_texts()) == [
        "best epoch (1)",
        "train: a batch",
        TRAIN,
        "validation: a batch",
        VALIDATION,
    ]
    assert "epoch 0 of the tables goes from 0 to 1" in figures[0].axes[-1].get_xlabel()


def test_equal_plots_are_equal_files(tmp_path):
    for name in ("a.pdf", "b.pdf"):
        save_loss_curves(tmp_path / name, history(2, 2), "title", 1)
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
