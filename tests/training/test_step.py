"""One update from several batches: that of one large batch."""

from __future__ import annotations

import copy

import pytest
import torch

from families import family
from finetune_lm import DataTrainingArguments
from finetune_lm.data_preprocessing import mask_random_spans, mask_random_tokens
from finetune_lm.runs.device import make_accelerator
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.schedule import Schedule
from finetune_lm.training.step import Learner, Update
from helpers import dataset, examples

CPU = torch.device("cpu")
TEXTS = [
    "The man has always broken the glass.",
    "The women drank.",
    "It is the old teacher that the children don't see.",
    "She opened it and they drank a glass of cold water.",
]
FAMILIES = {
    "gpt2": None,
    "llama": None,
    "bert": mask_random_tokens,
    "t5": mask_random_spans,
    "bart": None,
}
OPTIMIZERS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {"lr": 1e-3, "eps": 1e-3}),
}


def text_set(fam, function):
    # Batches of 8 differ in length, so in their numbers of labels.
    texts = [TEXTS[i % 4 if i % 3 else i // 8] for i in range(32)]
    labels = None if fam.task != "seq2seq" or function else texts[::-1]
    kwargs = {} if function is None else {"function": function}
    torch.manual_seed(1)
    return dataset(fam, examples(texts, labels), **kwargs)


def learner_of(model, optimizer, kwargs, **more):
    args = DataTrainingArguments(
        train_file="a",
        validation_file="b",
        train_optimizer=optimizer,
        train_optimizer_kwargs=kwargs,
    )
    args.train_optimizer_kwargs.pop("weight_decay", None)
    accelerator = make_accelerator(False)
    model, made = accelerator.prepare(model, make_optimizer(args, model))
    return Learner(model, made, accelerator, **more)


def learn_all(learner, data, size, update, fast):
    forward = Forward(
        Scorer(learner.model, data.task, fast=fast), data, size, needs=Needs(not fast)
    )
    counts = []
    for number, batch in enumerate(data.batches(size)):
        counts.append(int(data.task.counted(batch.inputs["labels"]).sum()))
        update.add(forward(batch, CPU).for_losses.loss, counts[-1], 0, number)
    return counts


def distance(one, other):
    return max(
        float((a - b).detach().abs().max())
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_four_batches_of_8_are_one_of_32(name, optimizer, fast):
    fam = family(name)
    before = copy.deepcopy(fam.model)
    data = text_set(fam, FAMILIES[name])
    results = []
    for n_batches in (1, 4):
        # Dropout is off in eval mode, so that both see the same model.
        learner = learner_of(copy.deepcopy(fam.model).eval(), *OPTIMIZERS[optimizer])
        update = Update(learner, n_batches)
        counts = learn_all(learner, data, 32 // n_batches, update, fast)
        assert not update.is_under_way
        results.append(learner.model)
    assert len(set(counts)) > 1
    assert distance(*results) <= 1e-6
    assert distance(before, results[0]) > 1e-4


def test_batches_count_by_their_labels():
    """Worked out by hand: a mean of squares over 3 numbers, then over 1 number."""
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    learner = learner_of(model, torch.optim.SGD, {"lr": 1.0})
    update = Update(learner, 2)
    first, second = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[4.0]])
    update.add(model(first).mean(), 3, 0, 0)
    assert update.is_under_way
    assert model.weight.item() == 1.0
    update.add(model(second).mean(), 1, 0, 1)
    # The gradient of the mean of w x over all four is (1 + 2 + 3 + 4) / 4.
    assert model.weight.item() == pytest.approx(1.0 - 2.5, abs=1e-6)


class Told:
    """Hears what callbacks are told, and sees gradients."""

    def __init__(self, model):
        self.model, self.heard = model, []

    def run(self, hook, epoch=None, batch=None):
        gradient = self.model.weight.grad
        self.heard.append((hook, epoch, batch, None if gradient is None else gradient.tolist()))

    def after_step(self, epoch, batch):
        self.run("after_step", epoch, batch)


def step_with(max_grad_norm, freeze_first=False):
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    told = Told(model)
    if freeze_first:
        run = told.run

        def freeze(hook, epoch=None, batch=None):
            if hook == "pre_train_step":
                model.weight.grad[0, 0] = 0.0
            run(hook, epoch, batch)

        told.run = freeze
    learner = learner_of(model, torch.optim.SGD, {"lr": 1.0}, callbacks=told)
    update = Update(learner, 1, max_grad_norm)
    update.add(model(torch.tensor([[3.0, 4.0]])).sum(), 1, 2, 5)
    return model.weight.tolist()[0], told.heard


def test_gradients_are_clipped_to_a_norm():
    assert step_with(None)[0] == [-3.0, -4.0]
    assert step_with(10.0)[0] == [-3.0, -4.0]
    # (3, 4) has the norm 5.
    assert step_with(1.0)[0] == pytest.approx([-0.6, -0.8], abs=1e-5)


def test_frozen_entries_do_not_count_in_the_norm():
    # Without the first, (0, 4) has the norm 4 and is to have 2.
    assert step_with(2.0, freeze_first=True)[0] == pytest.approx([0.0, -2.0], abs=1e-5)


def test_callbacks_see_gradients_before_they_are_clipped_and_are_called_in_order():
    heard = step_with(1.0)[1]
    assert [each[:3] for each in heard] == [
        ("pre_train_step", 2, 5),
        ("after_step", 2, 5),
        ("post_train_step", 2, 5),
    ]
    assert heard[0][3] == [[3.0, 4.0]]
    # Those that the optimizer used are still there afterwards.
    assert heard[2][3][0] == pytest.approx([0.6, 0.8], abs=1e-5)


def test_what_is_left_makes_an_update():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    told = Told(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    accelerator = make_accelerator(False)
    learner = Learner(model, optimizer, accelerator, told, Schedule(scheduler, "StepLR", False))
    update = Update(learner, 3)
    update.add(model(torch.tensor([[1.0]])).mean(), 2, 0, 7)
    update.add(model(torch.tensor([[4.0]])).mean(), 1, 0, 9)
    assert update.is_under_way
    assert not told.heard
    update.make(0)
    assert not update.is_under_way
    assert model.weight.item() == pytest.approx(1.0 - (2 * 1 + 4) / 3, abs=1e-6)
    assert [each[:3] for each in told.heard] == [
        (name, 0, 9) for name in ("pre_train_step", "after_step", "post_train_step")
    ]
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_too_large_for_half_precision_does_not_count_for_the_schedule(fused):
    """Also where the optimizer itself leaves it out."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, fused=fused)
    schedule = Schedule(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), "StepLR", False)
    accelerator = make_accelerator(False)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    model, optimizer = accelerator.prepare(model, optimizer)
    update = Update(Learner(model, optimizer, accelerator, schedule=schedule))
    before, rates = model.weight.detach().clone(), []
    for factor in (torch.inf, 1.0):
        update.add(model(torch.ones(1, 3)).sum() * factor, 1, 0, 0)
        rates.append(optimizer.param_groups[0]["lr"])
        assert torch.equal(model.weight, before) == (factor == torch.inf)
    assert rates == [1.0, 0.5]
