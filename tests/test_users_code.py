"""Every kind of callable of a user's: its exceptions say whose they are, and it ends no run."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import optuna
import pytest
import torch

from families import family
from finetune_lm import DataTrainingArguments, ModelArguments, UserError, load_metrics
from finetune_lm.arguments.given_functions import modifier_problems, preprocessing_problems
from finetune_lm.cli import main
from finetune_lm.data.feeding import tokenizer_problems
from finetune_lm.errors import raised_in, users_code
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.model_modifiers.callbacks import make_callbacks
from finetune_lm.models.loading import load_model
from finetune_lm.models.tasks import TASKS
from finetune_lm.study.objects import make_object
from finetune_lm.study.plan import _optimize_kwargs
from finetune_lm.study.sampling import StudySampler
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.schedule import make_schedule
from finetune_lm.training.step import _step
from helpers import dataset, write_lines
from setups import DATA


def wrong(*args, **kwargs):
    """What goes wrong in the tests below."""
    raise RAISED["kind"](*RAISED["args"])


RAISED = {"kind": KeyError, "args": ["of the user's"]}


class Wrong:
    """Goes wrong at one of its methods."""

    where = ""

    def __init__(self, model, tokenizer):
        self._maybe("made")

    def __call__(self, *args, **kwargs):
        self._maybe("called")
        return torch.ones((), requires_grad=True)

    def after_step(self, epoch, batch):
        self._maybe("after_step")

    def state_dict(self):
        self._maybe("state_dict")
        return {}

    def load_state_dict(self, state):
        self._maybe("load_state_dict")

    @staticmethod
    def read_files():
        wrong()

    def _maybe(self, what):
        if self.where == what:
            wrong()


class WrongOptimizer(torch.optim.SGD):
    def step(self, *args):
        wrong()


class WrongSchedule(torch.optim.lr_scheduler.ConstantLR):
    def step(self, *args):
        if getattr(self, "is_made", False):
            wrong()
        self.is_made = True


class WrongOfLoss(torch.optim.lr_scheduler.ReduceLROnPlateau):
    def step(self, loss, epoch=None):
        wrong()


class WrongStorage(optuna.storages.InMemoryStorage):
    def __init__(self):
        wrong()


class WrongSampler(optuna.samplers.RandomSampler):
    def sample_independent(self, *args):
        wrong()


def is_wrong(place):
    return type("Wrong", (Wrong,), {"where": place})


def loss(place):
    def call():
        losses = Losses([LossEntry(is_wrong(place))], torch.sum, None, None)
        losses(None, None)

    return call


def callbacks(place):
    def call():
        entry = SimpleNamespace(hook="pre_train_step", cls=is_wrong(place), kwargs={})
        so_far = SimpleNamespace(model=None, tokenizer=None, is_asked_for=False)
        made = make_callbacks([entry], so_far, 1)
        made.run("pre_train_step", 0, 0)
        made.after_step(0, 0)
        made.load_state_dict(made.state_dict())

    return call


def optimizer(cls=torch.optim.SGD, **kwargs):
    args = DataTrainingArguments(
        train_optimizer=cls, train_optimizer_kwargs={"lr": 1e-3}, epochs=2, **kwargs
    )
    return make_optimizer(args, torch.nn.Linear(2, 2)), args


def schedule(cls, step):
    made, args = optimizer(lr_scheduler=cls)
    step(make_schedule(args, made, 2))


def study(**kwargs):
    sampler = StudySampler(WrongSampler(), 1)
    made = optuna.create_study(sampler=sampler)
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1, **kwargs)


checked = SimpleNamespace(check=wrong, __name__="checked", __call__=wrong)
KINDS = {
    "data_preprocessing_fn wrong": lambda: dataset(family("gpt2"), function=wrong),
    "the check of checked": lambda: tokenizer_problems(
        "place",
        checked,
        {},
        SimpleNamespace(task=TASKS["lm"], tokenizer=family("gpt2").tokenizer, name="gpt2"),
    ),
    "loss class Wrong": loss("made"),
    "loss Wrong": loss("called"),
    "loss reduction wrong": lambda: Losses([LossEntry(Wrong)], wrong, None, None)(None, None),
    "model_modifier_fn wrong": lambda: load_model(
        ModelArguments("tiny-lm", model_modifier_fns=[wrong])
    ),
    "callback Wrong": callbacks("made"),
    "callback Wrong at pre_train_step": callbacks("called"),
    "callback Wrong at after_step": callbacks("after_step"),
    "train_optimizer WrongOptimizer": lambda: _step(optimizer(WrongOptimizer)[0], None),
    "train_optimizer wrong": lambda: optimizer(wrong),
    "lr_scheduler WrongSchedule": lambda: schedule(WrongSchedule, lambda s: s.step_is_done()),
    "lr_scheduler WrongOfLoss": lambda: schedule(WrongOfLoss, lambda s: s.epoch_is_over(1.0)),
    "study_kwargs.sampler WrongSampler": study,
    "study_kwargs.storage WrongStorage": lambda: make_object(
        WrongStorage, {}, "study_kwargs.storage"
    ),
    "optimize_kwargs.callbacks wrong": lambda: _optimize_kwargs({"callbacks": [wrong]})[
        "callbacks"
    ][0](None, None),
}
MORE = [
    ("callback Wrong", callbacks("state_dict")),
    ("callback Wrong", callbacks("load_state_dict")),
    ("the check of wrong_check", lambda: modifier_problems([wrong_check], {})),
    (
        "the check of wrong_check",
        lambda: preprocessing_problems({"train": wrong_check}, {}, ["train"]),
    ),
]


def wrong_check(model, tokenizer):
    pass


wrong_check.check = wrong


@pytest.fixture(params=[*KINDS.items(), *MORE], ids=lambda each: each[0])
def kind(request):
    return request.param


def test_an_exception_says_whose_it_is(kind):
    name, call = kind
    with pytest.raises(KeyError) as caught:
        call()
    assert raised_in(caught.value) == name


def test_nothing_of_the_users_ends_the_program(kind, monkeypatch):
    name, call = kind
    monkeypatch.setitem(RAISED, "kind", SystemExit)
    monkeypatch.setitem(RAISED, "args", [0])
    try:
        told = "".join(call() or ["nothing"])  # checks return what they find
    except UserError as error:
        told = str(error)
    assert f"{name} must return but called sys.exit(0)" in told


def test_the_innermost_is_named():
    with pytest.raises(ValueError) as caught, users_code("outer"), users_code("inner"):  # noqa: PT011
        raise ValueError
    assert raised_in(caught.value) == "inner"


def test_a_mistake_that_is_told_stays_as_it_is():
    with pytest.raises(UserError, match="so"), users_code("mine"):
        raise UserError("so")


class Rude:
    """A callback that goes wrong in the middle of a run."""

    def __init__(self, model, tokenizer):
        pass

    def __call__(self, epoch, batch):
        wrong()


@pytest.mark.parametrize(
    ("error", "status", "first"),
    [
        (KeyError("hf_secret"), 1, "callback Rude at post_train_batch raised KeyError."),
        (SystemExit(0), 2, "callback Rude at post_train_batch must return but called sys.exit(0)."),
    ],
)
def test_what_is_told_of_it(error, status, first, tmp_path, monkeypatch, capsys):
    """The traceback, with a line above it; what was recorded is kept."""
    monkeypatch.setitem(RAISED, "kind", type(error))
    monkeypatch.setitem(RAISED, "args", error.args)
    monkeypatch.setitem(sys.modules, "rude", SimpleNamespace(Rude=Rude))
    monkeypatch.chdir(tmp_path)
    argv = ["--model_name_or_path", "tiny-lm", "--train_file", str(DATA / "flomped_test.txt.gz")]
    argv += ["--validation_file", write_lines(tmp_path / "v.txt.gz", ["So."]), "--epochs", "1"]
    argv += ["--max_train_samples", "4", "--output_dir", "out", "--token", "hf_secret"]
    argv += ["--model_callbacks.post_train_batch", "rude.Rude"]
    assert main(argv) == status
    said = capsys.readouterr().err
    lines = said[said.index("finetune-lm: error:") :].splitlines()
    assert lines[0].startswith(f"finetune-lm: error: {first}")
    assert ("Traceback (most recent call last):" in lines[1:]) == (status == 1)
    assert "secret" not in said
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "failed"
    assert len(load_metrics(tmp_path / "out"))


@pytest.mark.parametrize("code", [0, None, 1])
def test_what_ends_the_program_all_the_same_is_told(code, monkeypatch, capsys):
    def leave(*args):
        raise SystemExit(code)

    monkeypatch.setattr("finetune_lm.experiment.run", leave)
    assert main(["--model_name_or_path", "tiny-lm", "--test_file", "x.txt"]) == 1
    assert capsys.readouterr().err == (
        f"finetune-lm: error: something called sys.exit({code!r}) before the end.\n"
    )


NO_MODIFIERS = {"a number": 3, "the tokenizer": object(), "true": True, "a list": []}


@pytest.mark.parametrize("returned", NO_MODIFIERS.values(), ids=NO_MODIFIERS)
def test_a_modifier_that_returns_no_model(returned):
    def modify(model, tokenizer):
        return returned

    kind = type(returned).__name__
    with pytest.raises(UserError, match=f"modify must return a model, .* but returned {kind}"):
        load_model(ModelArguments("tiny-lm", model_modifier_fns=[modify]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (1.5, "1.5"),
        ("x", "'x'"),
        ([torch.ones(())], r"\[tensor\(1.\)\]"),
        (torch.ones(2), r"one of shape \(2,\)"),
        (torch.ones(0), r"one of shape \(0,\)"),
        (torch.ones((), dtype=torch.complex64), r"one of shape \(\)"),
    ],
    ids=str,
)
def test_a_loss_or_a_reduction_that_returns_no_number(value, shown):
    def make(model, tokenizer):
        return lambda outputs, labels: value

    with pytest.raises(UserError, match=f"must return a tensor of one value but returned {shown}"):
        Losses([LossEntry(make)], torch.sum, None, None)(None, None)
    with pytest.raises(UserError, match=f"must return a tensor of one value but returned {shown}"):
        Losses([LossEntry(Wrong)], lambda losses: value, None, None)(None, None)


def test_a_loss_may_count():
    def make(model, tokenizer):
        return lambda outputs, labels: torch.tensor(3)

    values = Losses([LossEntry(make), LossEntry(Wrong)], torch.sum, None, None)(None, None)
    assert values.numbers() == {"loss": 4.0, "make": 3.0, "Wrong": 1.0}


def test_a_loss_class_that_makes_nothing_to_call():
    with pytest.raises(UserError, match="must make an object that is called with outputs and lab"):
        Losses([LossEntry(lambda model, tokenizer: None)], torch.sum, None, None)
