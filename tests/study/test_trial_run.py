"""A trial comes out as a single run does, whatever trials there were before it."""

from __future__ import annotations

import gc

import pytest
import torch

import finetune_lm
from families import family
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.recording.recorder import Recorder
from finetune_lm.runs.interruption import Interruption
from finetune_lm.study.parameters import with_values
from finetune_lm.study.trial_run import InitialState, TrialRunner
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.loop import train
from helpers import save_family
from studies import Misbehave, data_args


@pytest.mark.parametrize("name", ["gpt2", "bert", "pythia"])
def test_everything_is_as_it_was(name):
    model = family(name).model
    model.train()
    next(model.children()).eval()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    inputs = torch.tensor([[5, 6, 7]])

    def outputs():
        torch.manual_seed(0)
        return model(inputs).logits.detach().clone()

    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = {key: id(value) for key, value in model.named_parameters()}
    flags = [module.training for module in model.modules()]
    result = outputs()
    state = InitialState(model)
    for _ in range(2):
        first.requires_grad_(True)
        Misbehave(model, None)(0, 0)
        model(inputs).logits.sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert not torch.equal(outputs(), result)
        state.restore()
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert {key: id(value) for key, value in model.named_parameters()} == ids
        assert [module.training for module in model.modules()] == flags
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not first.requires_grad
        assert torch.equal(outputs(), result)
        # A hook that was registered is not called either, nor can it still be taken away.
        first.requires_grad_(True)
        model(inputs).logits.sum().backward()
        state.restore()


def test_hooks_that_were_there_stay():
    model = family("gpt2").model
    embeddings = model.get_input_embeddings()
    calls = []
    embeddings.register_forward_hook(lambda *_: calls.append(1))
    state = InitialState(model)
    embeddings.register_forward_hook(lambda *_: calls.append(2))
    state.restore()
    model(torch.tensor([[5]]))
    assert calls == [1]


def test_tied_weights_stay_tied():
    model = family("gpt2").model
    state = InitialState(model)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    state.restore()
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Directories with small models, all of which have dropout."""
    directories = {}
    for name in ("gpt2", "bert", "t5"):
        fam = family(name)
        assert any(m.p > 0 for m in fam.model.modules() if isinstance(m, torch.nn.Dropout))
        directories[name] = save_family(fam, tmp_path_factory.mktemp(name))
    return directories


class Losses(Recorder):
    def __init__(self):
        self.losses = []

    def epoch(self, result):
        self.losses.append(result.validation["loss"])


def losses_of(runner, args):
    """The validation loss of each epoch of a trial."""
    stopping, heard = EarlyStopping(args.patience, args.delta, args.min_epochs), Losses()
    with runner.prepared(args, stopping, heard, Interruption()) as prepared:
        train(*prepared)
    assert stopping.best_loss == min(heard.losses)
    return heard.losses


def masked(strategy):
    return {
        "data_preprocessing_fn": {"train": mask_random_tokens, "validation": mask_random_tokens},
        "data_preprocessing_fn_strategy": {"train": strategy, "validation": strategy},
        "data_preprocessing_fn_kwargs": {
            key: {"mask_prop": 0.4} for key in ("train", "validation")
        },
    }


CASES = {
    "gpt2": {},
    "t5": {"shuffle_train": False},
    "bert per batch": masked("per_batch"),
    "bert once": masked("once"),
}
LR = ("train_optimizer_kwargs", "lr")


@pytest.mark.parametrize("case", CASES)
def test_a_trial_is_the_run_that_it_stands_for(models, tmp_path, case):
    name = case.split()[0]
    args = data_args(tmp_path, epochs=3, **CASES[case])
    model_args = ModelArguments(models[name])
    runner = TrialRunner(model_args, args, {"train_optimizer_kwargs"})
    for number, lr in enumerate((3e-3, 1e-2)):
        tried = with_values(args, {LR: lr})
        losses = losses_of(runner, tried)
        single = finetune_lm.run(
            model_args, with_values(tried, {("output_dir",): str(tmp_path / f"run{number}")})
        )
        validation = single.metrics[single.metrics["dataset_type"] == "validation"]
        by_epoch = validation.groupby("epoch")["loss"].first().tolist()
        # The table has the losses as it is written, the trial those that were computed.
        assert losses == pytest.approx(by_epoch, rel=1e-6)
        assert min(losses) == single.best_loss


@pytest.mark.parametrize("case", CASES)
def test_a_trial_does_not_know_those_before_it(models, tmp_path, case):
    name = case.split()[0]
    args = data_args(tmp_path, **CASES[case])
    model_args = ModelArguments(models[name], model_pre_train_step_callbacks=[Misbehave])
    first, second = (
        with_values(args, {LR: 3e-3}),
        with_values(args, {LR: 1e-2, ("train_optimizer",): torch.optim.SGD, ("epochs",): 3}),
    )
    if name == "t5":  # has no LayerNorm to meddle with
        model_args = ModelArguments(models[name])
    searched = {"train_optimizer_kwargs", "train_optimizer", "epochs"}

    def new_runner():
        return TrialRunner(model_args, args, searched)

    runner = new_runner()
    one = [losses_of(runner, each) for each in (first, second, first)]
    runner = new_runner()
    other = [losses_of(runner, each) for each in (second, first)]
    assert one == [other[1], other[0], other[1]]
    assert len(one[1]) == 3
    assert one[0] != one[1][:2]


def test_the_callback_of_this_test_would_leave_something_behind(models, tmp_path, monkeypatch):
    """Without the restoring the test above would fail."""
    from finetune_lm.study import trial_run

    monkeypatch.setattr(trial_run.InitialState, "restore", lambda self: None)
    args = data_args(tmp_path)
    model_args = ModelArguments(models["gpt2"], model_pre_train_step_callbacks=[Misbehave])
    runner = TrialRunner(model_args, args, {"epochs"})
    assert losses_of(runner, args) != losses_of(runner, args)


def test_what_trials_do_not_change_is_made_once(models, tmp_path, monkeypatch):
    from finetune_lm.study import trial_run

    made = []

    def counting(what):
        original = getattr(trial_run, what)

        def load(*args):
            made.append(what)
            return original(*args)

        monkeypatch.setattr(trial_run, what, load)

    counting("load_datasets")
    counting("load_without_data")
    args = data_args(tmp_path)
    runner = TrialRunner(ModelArguments(models["gpt2"]), args, {"train_optimizer_kwargs"})
    model = runner.loaded.model
    for lr in (1e-3, 1e-2):
        losses_of(runner, with_values(args, {LR: lr}))
    assert made == ["load_without_data", "load_datasets"]
    assert runner.loaded.model is model


PLACES = {
    "data_preprocessing_fn_kwargs": (
        ("data_preprocessing_fn_kwargs", "train", "mask_prop"),
        (0.2, 0.8),
    ),
    "max_train_samples": (("max_train_samples",), (2, 5)),
    "seed": (("seed",), (1, 2)),
}


@pytest.mark.parametrize("searched", PLACES)
def test_data_that_trials_change_is_made_as_in_a_single_run(models, tmp_path, searched):
    place, values = PLACES[searched]
    args = data_args(tmp_path, **masked("once"))
    model_args = ModelArguments(models["bert"])
    runner = TrialRunner(model_args, args, {searched})
    seen = []
    for number, value in enumerate((*values, values[0])):
        tried = with_values(args, {place: value})
        seen.append(losses_of(runner, tried))
        single = finetune_lm.run(
            model_args, with_values(tried, {("output_dir",): str(tmp_path / f"run{number}")})
        )
        assert min(seen[-1]) == single.best_loss
    assert seen[0] == seen[2] != seen[1]


def test_trials_leave_no_memory_behind(models, tmp_path):
    args = data_args(tmp_path)
    runner = TrialRunner(ModelArguments(models["gpt2"]), args, {"epochs"})

    def n_tensors():
        gc.collect()
        return sum(1 for each in gc.get_objects() if isinstance(each, torch.Tensor))

    losses_of(runner, args)
    before = n_tensors()
    for _ in range(3):
        losses_of(runner, args)
    assert n_tensors() <= before  # what other tests have left may go meanwhile
    assert all(parameter.grad is None for parameter in runner.loaded.model.parameters())


class TakesNoKwargs(OutputsDefaultLoss):
    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)


def test_what_does_not_go_together_is_told_before_the_first_trial(models, tmp_path):
    args = data_args(
        tmp_path,
        loss_classes={"train": [TakesNoKwargs]},
        loss_classes_kwargs={"train": {"TakesNoKwargs": {"x": 1}}},
    )
    with pytest.raises(UserError, match="TakesNoKwargs must accept model, tokenizer and what"):
        TrialRunner(ModelArguments(models["gpt2"]), args, {"epochs"})


def test_no_rows_are_made(models, tmp_path, monkeypatch):
    from finetune_lm.recording import token_rows

    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(token_rows.TokenRows, "__init__", fail)
    monkeypatch.setattr(token_rows.TokenRows, "of_batches", fail)
    args = data_args(tmp_path)
    assert isinstance(args, DataTrainingArguments)
    runner = TrialRunner(ModelArguments(models["gpt2"]), args, {"epochs"})
    assert len(losses_of(runner, args)) == 2
    assert not (tmp_path / "out").exists()
