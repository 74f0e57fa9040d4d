"""What may be a callback, what is saved of it, and what happens when one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

import finetune_lm
from callback_runs import Recorder, arguments, heard
from finetune_lm import ModelArguments, UserError
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.model_modifiers import ModelCallback
from finetune_lm.model_modifiers.callbacks import Callbacks


def test_epoch_and_batch_may_be_called_anything_and_come_in_any_order():
    class ByPosition:
        def __call__(self, e, b, /):
            heard.append((e, b))

    class Reversed:
        def __call__(self, batch, epoch):
            heard.append((epoch, batch))

    class Anything:
        def __call__(self, **kwargs):
            heard.append((kwargs["epoch"], kwargs["batch"]))

    def function(epoch, batch):
        heard.append((epoch, batch))

    rows = {"begin_epoch": [ByPosition(), Reversed(), Anything(), function]}
    Callbacks(rows).run("begin_epoch", 3, 4)
    assert heard == [(3, 4)] * 4
    with pytest.raises(UserError, match="must accept epoch and batch but is called"):
        Callbacks({"begin_epoch": [lambda epoch: None]})
    with pytest.raises(UserError, match="begin_epoch: int must have a method __call__"):
        Callbacks({"begin_epoch": [3]})
    with pytest.raises(ValueError, match="there is no point 'begin'"):
        Callbacks().run("begin")


def test_a_function_may_make_callbacks(models, files):
    def make(model, tokenizer, word="x"):
        return lambda epoch, batch: heard.append((word, epoch, batch))

    args = ModelArguments(
        models["gpt2"],
        model_callbacks={"end_epoch": make},
        model_callbacks_kwargs={"end_epoch": {"make": {"word": "y"}}},
    )
    finetune_lm.run(args, arguments(files))
    assert heard == [("y", 0, None), ("y", 1, None)]


class Counter(ModelCallback):
    def __init__(self, model=None, tokenizer=None):
        super().__init__(model, tokenizer)
        self.n = 0

    def __call__(self, epoch, batch):
        self.n += 1

    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        self.n = state["n"]


class Forgetful(ModelCallback):
    def state_dict(self):  # but nothing that takes it back
        return {"n": 1}


def test_states_are_saved_and_given_back(tmp_path):
    first = Callbacks({"end_epoch": [Counter(), Forgetful(None, None), Recorder(None, None)]})
    first.run("end_epoch", 0)
    first.run("end_epoch", 1)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=False)
    assert state["callbacks"] == {"end_epoch": [{"n": 2}, None, None]}
    counter = Counter()
    second = Callbacks({"end_epoch": [counter, Forgetful(None, None), Recorder(None, None)]})
    second.load_state_dict(state)
    assert counter.n == 2
    with pytest.raises(UserError, match="there are 1 of end_epoch and there were 3 of end_epoch"):
        Callbacks({"end_epoch": [counter]}).load_state_dict(state)


# When something goes wrong


@pytest.mark.parametrize("hook", ["begin_epoch", "pre_train_step", "end_epoch", "pre_test"])
@pytest.mark.parametrize("error", [UserError, RuntimeError])
def test_an_error_ends_the_run_and_keeps_what_was_measured(models, files, hook, error):
    class Fails(ModelCallback):
        def __call__(self, epoch, batch):
            if epoch == 1 or hook == "pre_test":
                raise error("the weights must be small.")

    args = ModelArguments(models["gpt2"], model_callbacks={hook: Fails})
    with pytest.raises(error, match="the weights must be small"):
        finetune_lm.run(args, arguments(files, test_file=[files["test"]]))
    finished = {"begin_epoch": {0}, "pre_train_step": {0}, "end_epoch": {0, 1}, "pre_test": {0, 1}}
    assert set(finetune_lm.load_metrics("out")["epoch"]) == finished[hook]
    record = json.loads(Path("out/run.json").read_text())
    assert record["state"] == "failed"
    assert record["error"] == f"{error.__name__}: the weights must be small."
    assert transformers.AutoModelForCausalLM.from_pretrained("out/model")


def test_an_error_in_the_constructor_writes_nothing(models, files):
    class Refuses(ModelCallback):
        def __init__(self, model, tokenizer):
            raise UserError("the model must be small.")

    args = ModelArguments(models["gpt2"], model_callbacks={"end_epoch": Refuses})
    with pytest.raises(UserError, match="the model must be small"):
        finetune_lm.run(args, arguments(files))
    assert not Path("out").exists()


def test_the_base_class_tells_of_every_point():
    text = " ".join(ModelCallback.__doc__.split())
    for name, hook in HOOKS.items():
        told = [w for w, has in (("epoch", hook.has_epoch), ("batch", hook.has_batch)) if has]
        assert f"{name} ({', '.join(told) or 'neither'}): {hook.when}" in text
    # And does nothing.
    callback = ModelCallback(None, None)
    assert callback(epoch=0, batch=0) is None
    assert callback.after_step(epoch=0, batch=0) is None
    assert callback.check(x=1) is None
