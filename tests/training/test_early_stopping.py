from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.constants import SELECT_BY
from finetune_lm.training.early_stopping import EarlyStopping, judged_by


def run(losses, **kwargs):
    stopping = EarlyStopping(**kwargs)
    for epoch, loss in enumerate(losses):
        stopping.update(epoch, loss)
        if stopping.should_stop():
            return epoch, stopping
    return None, stopping


def test_each_name_of_select_by_has_its_number():
    worse = {"loss": 2.5, "KLBaselineLoss": 1.0, "pair_accuracy": 0.5, "pair_difference": -1.0}
    better = {"loss": 2.0, "KLBaselineLoss": 2.0, "pair_accuracy": 0.75, "pair_difference": 1.0}
    for name in SELECT_BY:
        assert judged_by(name, better) < judged_by(name, worse)
    assert judged_by("loss", worse) == 2.5


def test_no_patience_never_stops():
    stopped, stopping = run([1.0, *[2.0] * 50])
    assert stopped is None
    assert (stopping.best_epoch, stopping.best_loss) == (0, 1.0)
    assert stopping.patience_left is None


@pytest.mark.parametrize(("patience", "last"), [(0, 3), (1, 3), (2, 4), (3, 5)])
def test_patience_counts_epochs_in_a_row(patience, last):
    stopped, stopping = run([3, 2, 1, 1, 1, 1, 1], patience=patience)
    assert stopped == last
    assert stopping.best_epoch == 2


def test_an_improvement_resets_patience():
    assert run([3, 4, 2, 4, 1, 4], patience=2)[0] is None


def test_min_epochs_are_completed():
    assert run([1] * 20, patience=2, min_epochs=10)[0] == 9


def test_delta_is_what_counts_as_improvement():
    losses = [1.0, 0.95, 0.93, 0.92, 0.91]
    assert run(losses, patience=2, delta=0.1)[0] == 2
    assert run(losses, patience=2)[0] is None


def test_slow_improvement_adds_up():
    assert run([1.0, 0.96, 0.92, 0.88, 0.84, 0.80], patience=3, delta=0.1)[0] is None


def test_the_best_epoch_is_the_lowest_loss_whatever_delta():
    stopped, stopping = run([1.0, 0.95, 0.97], patience=5, delta=0.5)
    assert (stopped, stopping.best_epoch, stopping.best_loss) == (None, 1, 0.95)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_best_is_the_first_minimum(losses):
    _, stopping = run(losses)
    assert stopping.best_loss == min(losses)
    assert stopping.best_epoch == losses.index(min(losses))


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_is_never_an_improvement(loss):
    stopped, stopping = run([loss, loss, 2.0, loss, loss, loss], patience=3)
    assert (stopped, stopping.best_epoch, stopping.best_loss) == (5, 2, 2.0)
    _, stopping = run([loss])
    assert (stopping.best_epoch, stopping.epochs_without_improvement) == (None, 1)


def test_what_was_found_is_taken_up_and_patience_is_new():
    _, stopping = run([3, 2, 2.5], patience=3, delta=0.1)
    again = EarlyStopping(patience=2, delta=0.1)
    again.load_state_dict(stopping.state_dict())
    assert (again.best_epoch, again.n_epochs, again.patience_left) == (1, 3, 1)
    again.update(3, 1.95)  # better than the best, but by less than delta
    assert again.should_stop()
    assert again.best_epoch == 3
