"""Schedules of the learning rate, against learning rates worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.arguments.optimizer_settings import follows_length, schedule_names
from finetune_lm.training.schedule import make_schedule


def made(n_batches=5, epochs=2, accumulation=1, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    args = DataTrainingArguments(
        train_file="a",
        validation_file="b",
        epochs=epochs,
        gradient_accumulation_steps=accumulation,
        **kwargs,
    )
    return optimizer, make_schedule(args, optimizer, n_batches)


def rates(n, **kwargs):
    """The learning rate of each of the first steps."""
    optimizer, schedule = made(**kwargs)
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step_is_done()
    return found


def problems(**kwargs):
    args = DataTrainingArguments(train_file="a", validation_file="b", **kwargs)
    return args.problems()


def test_none_by_default():
    assert made()[1] is None


def test_linear_ends_with_the_run():
    assert rates(10, lr_scheduler="linear") == pytest.approx([1 - i / 10 for i in range(10)])


def test_steps_are_fewer_where_several_batches_make_one():
    # 5 batches in threes are 2 steps an epoch: 4 in all.
    assert rates(4, lr_scheduler="linear", accumulation=3) == pytest.approx([1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("kwargs", [{"num_warmup_steps": 2}, {"warmup_ratio": 0.2}])
def test_warmup(kwargs):
    expected = [0, 0.5, *(1 - i / 8 for i in range(8))]
    found = rates(10, lr_scheduler="linear", lr_scheduler_kwargs=kwargs)
    assert found == pytest.approx(expected)


def test_cosine_with_a_number_of_steps_of_its_own():
    expected = [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    kwargs = {"num_training_steps": 4}
    assert rates(4, lr_scheduler="cosine", lr_scheduler_kwargs=kwargs) == pytest.approx(expected)


def test_a_class():
    kwargs = {"step_size": 2, "gamma": 0.5}
    found = rates(5, lr_scheduler=torch.optim.lr_scheduler.StepLR, lr_scheduler_kwargs=kwargs)
    assert found == [1, 1, 0.5, 0.5, 0.25]


def test_warmup_stable_decay():
    kwargs = {"num_warmup_steps": 2, "num_decay_steps": 4, "decay_type": "linear"}
    found = rates(10, lr_scheduler="warmup_stable_decay", lr_scheduler_kwargs=kwargs)
    assert found == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize(
    "name", ["reduce_lr_on_plateau", torch.optim.lr_scheduler.ReduceLROnPlateau]
)
def test_a_plateau_is_one_of_epochs(name):
    optimizer, schedule = made(
        lr_scheduler=name, lr_scheduler_kwargs={"patience": 1, "factor": 0.1}
    )
    found = []
    for loss in (3.0, 2.0, 2.5, math.nan, 1.0):
        for _ in range(5):
            optimizer.step()
            schedule.step_is_done()
        schedule.epoch_is_over(loss)
        found.append(optimizer.param_groups[0]["lr"])
    # More than one epoch without improvement; no number is none.
    assert found == pytest.approx([1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize("name", schedule_names())
def test_every_name_of_transformers_can_be_made_and_kept(name):
    needed = {
        "warmup_stable_decay": {"num_decay_steps": 3},
        "cosine_with_min_lr": {"min_lr": 0.1},
        "cosine_warmup_with_min_lr": {"min_lr": 0.1},
    }
    given = {"lr_scheduler": name, "lr_scheduler_kwargs": needed.get(name, {})}
    assert problems(**given) == []
    (first, schedule), (second, again) = made(**given), made(**given)

    def go_on(optimizer, schedule, n):
        for _ in range(n):
            optimizer.step()
            schedule.step_is_done()
            schedule.epoch_is_over(1.0)

    go_on(first, schedule, 3)
    second.load_state_dict(first.state_dict())
    again.load_state_dict(schedule.state_dict())
    go_on(first, schedule, 4)
    go_on(second, again, 4)
    assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]


StepLR, CyclicLR = torch.optim.lr_scheduler.StepLR, torch.optim.lr_scheduler.CyclicLR


@pytest.mark.parametrize(
    ("schedule", "kwargs", "said"),
    [
        ("cosin", {}, "but got 'cosin'. Did you mean cosine?"),
        (
            "linear",
            {"num_warmup_step": 3},
            "lr_scheduler_kwargs.num_warmup_step is not an argument of linear, which takes "
            "num_warmup_steps, num_training_steps, warmup_ratio. Did you mean "
            "lr_scheduler_kwargs.num_warmup_steps?",
        ),
        ("constant", {"num_warmup_steps": 3}, "is not an argument of constant, which takes none"),
        (
            "linear",
            {"last_epoch": 3},
            "lr_scheduler_kwargs.last_epoch is not an argument of linear",
        ),
        (None, {"gamma": 1}, "lr_scheduler_kwargs.gamma has no use without lr_scheduler."),
        (StepLR, {}, "lr_scheduler_kwargs.step_size must be given, because StepLR needs it."),
        (
            StepLR,
            {"step_size": 1, "gama": 2},
            "lr_scheduler_kwargs.gama is not an argument of StepLR",
        ),
        ("warmup_stable_decay", {}, "num_decay_steps must be given"),
        ("linear", {"num_warmup_steps": -1}, "must be an integer, at least 0, but got -1"),
        ("linear", {"num_training_steps": 0.5}, "must be an integer, at least 1, but got 0.5"),
        ("linear", {"warmup_ratio": 2}, "must be a number from 0 to 1 but got 2"),
        ("linear", {"warmup_ratio": 0.1, "num_warmup_steps": 3}, "cannot be given together"),
    ],
)
def test_what_does_not_go_together_is_told_early(schedule, kwargs, said):
    [problem] = problems(lr_scheduler=schedule, lr_scheduler_kwargs=kwargs)
    assert said in problem


def test_a_wrong_value_is_told_when_the_schedule_is_made():
    with pytest.raises(UserError, match=r"lr_scheduler CyclicLR does not take what"):
        made(lr_scheduler=CyclicLR, lr_scheduler_kwargs={"base_lr": "x", "max_lr": 1})


def test_what_is_no_schedule():
    with pytest.raises(UserError, match="whose objects have step, state_dict, load_state_dict"):
        made(lr_scheduler=lambda optimizer: 3)


class Falling(torch.optim.lr_scheduler.LambdaLR):
    """A schedule of a user's own that must be told how long it is."""

    def __init__(self, optimizer, total_iters):
        super().__init__(optimizer, lambda step: 1 - step / total_iters)


ONE_CYCLE = {"max_lr": 4.0, "cycle_momentum": False}
TOTALS = {
    torch.optim.lr_scheduler.OneCycleLR: ("total_steps", ONE_CYCLE),
    torch.optim.lr_scheduler.CosineAnnealingLR: ("T_max", {}),
    Falling: ("total_iters", {}),
}


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("schedule", TOTALS)
def test_classes_are_told_the_number_of_steps(schedule, accumulation):
    name, kwargs = TOTALS[schedule]
    given = {"lr_scheduler": schedule, "lr_scheduler_kwargs": kwargs}
    assert problems(**given) == []
    # 7 epochs of 5 batches, each batch a step or three of them.
    n_steps = 35 if accumulation == 1 else 14
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    by_hand = schedule(optimizer, **{name: n_steps}, **kwargs)
    expected = []
    for _ in range(n_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        by_hand.step()
    assert rates(n_steps, epochs=7, accumulation=accumulation, **given) == expected
    # The longest run there is still learns with a finite rate, which is lower than at its highest.
    assert 0 <= expected[-1] < max(expected)
    assert follows_length(schedule, kwargs)
    assert not follows_length(schedule, {**kwargs, name: 3})


def test_one_cycle_in_numbers():
    """A rise by 4 / 25 at the beginning to 4 in 3 of 10 steps, by a cosine, and down again."""
    found = rates(
        10, lr_scheduler=torch.optim.lr_scheduler.OneCycleLR, lr_scheduler_kwargs=ONE_CYCLE
    )
    assert found[0] == pytest.approx(4 / 25)
    assert found[2] == pytest.approx(4)
    assert found[9] == pytest.approx(4 / 25 / 1e4)


@pytest.mark.parametrize(
    "kwargs", [{"total_steps": 6}, {"epochs": 2, "steps_per_epoch": 3}], ids=["total", "epochs"]
)
def test_what_is_said_of_the_number_of_steps_counts(kwargs):
    schedule = torch.optim.lr_scheduler.OneCycleLR
    given = {**ONE_CYCLE, **kwargs}
    assert not follows_length(schedule, given)
    found = rates(6, lr_scheduler=schedule, lr_scheduler_kwargs=given)
    assert found[5] == pytest.approx(4 / 25 / 1e4)


def test_a_default_of_its_own_is_left():
    schedule = torch.optim.lr_scheduler.LinearLR
    found = rates(7, lr_scheduler=schedule, lr_scheduler_kwargs={"start_factor": 0.5})
    assert found == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1, 1])
    assert not follows_length(schedule, {})


def test_half_of_what_is_needed_is_told():
    kwargs = {**ONE_CYCLE, "epochs": 3}
    with pytest.raises(UserError, match=r"total_steps OR .epochs AND steps_per_epoch"):
        made(lr_scheduler=torch.optim.lr_scheduler.OneCycleLR, lr_scheduler_kwargs=kwargs)


def test_a_schedule_that_ends_before_the_run():
    kwargs = {"max_lr": 1.0, "total_steps": 3, "cycle_momentum": False}
    with pytest.raises(UserError, match="lr_scheduler OneCycleLR ended before the training did"):
        rates(5, lr_scheduler=torch.optim.lr_scheduler.OneCycleLR, lr_scheduler_kwargs=kwargs)
