"""Callbacks in whole runs: when they come, what they are told, what they see, how they fail."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import finetune_lm
from families import TEXTS, family
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.data_preprocessing import (
    identity,
    mask_random_tokens,
    remove_non_mask_tokens_from_labels,
)
from finetune_lm.hooks import HOOKS
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.model_modifiers import ModelCallback
from finetune_lm.model_modifiers._own_randomness import OwnRandomness
from finetune_lm.model_modifiers.callbacks import Callbacks
from helpers import save_family, write_lines

heard: list = []


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Small models in directories; `gpt2` has dropout, as it comes."""
    return {
        name: save_family(family(name), tmp_path_factory.mktemp(name)) for name in ("gpt2", "bert")
    }


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    heard.clear()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    return {
        "train": write_lines(tmp_path / "teach.txt.gz", TEXTS[:4]),
        "validation": write_lines(tmp_path / "check.txt.gz", TEXTS[4:]),
        "test": write_lines(tmp_path / "probe.txt.gz", TEXTS[:3]),
    }


def arguments(files, **kwargs):
    settings = {
        "train_file": files["train"],
        "validation_file": files["validation"],
        "epochs": 2,
        "per_device_train_batch_size": 2,
        "train_optimizer_kwargs": {"lr": 1e-3},
        "seed": 5,
        "output_dir": "out",
        **kwargs,
    }
    return DataTrainingArguments(**settings)


class Recorder(ModelCallback):
    def __init__(self, model, tokenizer, at="step"):
        super().__init__(model, tokenizer)
        self.at = at

    def __call__(self, epoch, batch):
        heard.append((self.at, epoch, batch))

    def after_step(self, epoch, batch):
        heard.append((f"{self.at}: after", epoch, batch))


EVERYWHERE = {
    "model_callbacks": {hook: [Recorder] for hook in HOOKS},
    "model_callbacks_kwargs": {hook: {"Recorder": {"at": hook}} for hook in HOOKS},
}


def train_batch(epoch, number):
    names = ["pre_train_batch", "pre_train_step", "pre_train_step: after", "post_train_step"]
    return [(name, epoch, number) for name in [*names, "post_train_batch"]]


def validation(epoch):
    return [
        ("pre_validation", epoch, None),
        ("pre_validation_batch", epoch, 0),
        ("post_validation_batch", epoch, 0),
    ]


def test_set(epoch, n_batches):
    batches = [
        (f"{when}_test_batch", epoch, n) for n in range(n_batches) for when in ("pre", "post")
    ]
    return [("pre_test_dataset", epoch, None), *batches, ("post_test_dataset", epoch, None)]


test_set.__test__ = False


def test_every_point_of_a_run_in_order(models, files):
    args = arguments(
        files,
        eval_before_training=True,
        test_file=[files["test"], files["validation"]],
        per_device_test_batch_size=2,
    )
    result = finetune_lm.run(ModelArguments(models["gpt2"], **EVERYWHERE), args)
    best = result.best_epoch
    assert heard == [
        ("pre_training", None, None),
        *validation(-1),
        ("begin_epoch", 0, None),
        *train_batch(0, 0),
        *train_batch(0, 1),
        *validation(0),
        ("end_epoch", 0, None),
        ("begin_epoch", 1, None),
        *train_batch(1, 0),
        *train_batch(1, 1),
        *validation(1),
        ("end_epoch", 1, None),
        ("post_training", None, None),
        ("pre_test", best, None),
        *test_set(best, 2),
        *test_set(best, 1),
    ]
    # What the table says of epoch and batch is true, and its order is that of a run.
    for name, epoch, batch in heard:
        hook = HOOKS[name.removesuffix(": after")]
        assert (batch is not None) == hook.has_batch
        assert (epoch is not None) == hook.has_epoch
    seen = list(dict.fromkeys(name for name, epoch, _ in heard if epoch != -1))
    assert [name for name in seen if name in HOOKS] == list(HOOKS)


def test_a_run_that_only_tests(models, files):
    args = DataTrainingArguments(test_file=[files["test"]], output_dir="out")
    made = []

    class Learns(Recorder):
        def __init__(self, model, tokenizer):
            made.append("Learns")

    callbacks = {**EVERYWHERE["model_callbacks"], "end_epoch": [Learns]}
    kwargs = {k: v for k, v in EVERYWHERE["model_callbacks_kwargs"].items() if k != "end_epoch"}
    finetune_lm.run(
        ModelArguments(models["gpt2"], model_callbacks=callbacks, model_callbacks_kwargs=kwargs),
        args,
    )
    assert heard == [("pre_test", None, None), *test_set(None, 1)]
    # What is never called is not even made.
    assert made == []


def test_a_batch_with_nothing_to_predict_has_no_step(models, files, tmp_path):
    whole = "The man drank water."
    texts = (whole, whole.replace("water", "[MASK]"))
    lines = [{"text": text, "labels": whole} for text in texts]
    path = write_lines(tmp_path / "masked.json.gz", lines)
    functions = dict.fromkeys(("train", "validation"), remove_non_mask_tokens_from_labels)
    args = arguments(
        {"train": path, "validation": path},
        data_preprocessing_fn={**functions, "test": identity},
        per_device_train_batch_size=1,
        shuffle_train=False,
        epochs=1,
    )
    finetune_lm.run(ModelArguments(models["bert"], model_task="mlm", **EVERYWHERE), args)
    of_training = [entry for entry in heard if "train_" in entry[0]]
    assert of_training == [
        ("pre_train_batch", 0, 0),
        ("post_train_batch", 0, 0),
        *train_batch(0, 1),
    ]


def test_the_two_names_of_the_pre_train_step_row(models, files):
    class Second(Recorder):
        pass

    args = ModelArguments(
        models["gpt2"],
        model_pre_train_step_callbacks=[Recorder, Second],
        model_pre_train_step_callbacks_kwargs={"Recorder": {"at": "a"}, "Second": {"at": "b"}},
        model_callbacks={"pre_train_step": [Recorder, Recorder, Second]},
        model_callbacks_kwargs={
            "pre_train_step": {"Recorder": {"at": "c"}, "Recorder_2": {"at": "d"}}
        },
    )
    finetune_lm.run(args, arguments(files, epochs=1, per_device_train_batch_size=4))
    names = ["a", "b", "c", "d", "step"]
    assert heard == [(n, 0, 0) for n in names] + [(f"{n}: after", 0, 0) for n in names]


# What a callback finds


class Looker(ModelCallback):
    def __init__(self, model, tokenizer, at):
        super().__init__(model, tokenizer)
        self.at = at
        self.weight = model.get_input_embeddings().weight
        self.device = self.weight.device

    def __call__(self, epoch, batch):
        heard.append((self.at, self.weight.grad is not None, self.weight.detach().clone()))


def test_what_there_is_at_each_point(models, files, monkeypatch):
    from finetune_lm.training import loop

    record = loop.record_batch

    def record_batch(*args):
        heard.append(("rows", None, None))
        record(*args)

    monkeypatch.setattr(loop, "record_batch", record_batch)
    points = ["pre_train_batch", "pre_train_step", "post_train_step", "post_train_batch"]
    args = ModelArguments(
        models["gpt2"],
        model_callbacks={point: [Looker] for point in points},
        model_callbacks_kwargs={point: {"Looker": {"at": point}} for point in points},
    )
    finetune_lm.run(args, arguments(files, epochs=1, per_device_train_batch_size=4))
    assert [(at, has_gradients) for at, has_gradients, _ in heard] == [
        ("pre_train_batch", False),
        ("pre_train_step", True),
        ("post_train_step", True),
        ("rows", None),
        ("post_train_batch", False),
    ]
    before, with_gradients, moved, _, after = (weight for *_, weight in heard)
    assert torch.equal(before, with_gradients)
    assert not torch.equal(before, moved)
    assert torch.equal(moved, after)


class Unlearn(OutputsDefaultLoss):
    def __call__(self, outputs, labels):
        return -outputs.loss


class TableReader(ModelCallback):
    def __call__(self, epoch, batch):
        heard.append((epoch, int(finetune_lm.load_metrics("out")["epoch"].max())))


def test_the_end_of_an_epoch_and_of_training(models, files):
    """Best after the first epoch: what post_training finds is not that, what pre_test finds is."""
    args = ModelArguments(
        models["gpt2"],
        model_callbacks={
            "post_training": [Looker],
            "pre_test": [Looker],
            "end_epoch": [TableReader],
        },
        model_callbacks_kwargs={
            "post_training": {"Looker": {"at": "last"}},
            "pre_test": {"Looker": {"at": "best"}},
        },
    )
    data_args = arguments(
        files,
        test_file=[files["test"]],
        train_optimizer_kwargs={"lr": 1e-2},
        loss_classes={"train": [Unlearn], "validation": [OutputsDefaultLoss]},
    )
    result = finetune_lm.run(args, data_args)
    assert result.best_epoch == 0
    assert heard[:2] == [(0, 0), (1, 1)]
    (_, _, last), (_, _, best) = heard[2:]
    saved = transformers.AutoModelForCausalLM.from_pretrained("out/model")
    assert torch.equal(best, saved.get_input_embeddings().weight)
    assert not torch.equal(best, last)


def test_a_callback_at_the_end_of_an_epoch_does_not_change_what_is_kept(models, files):
    """The best model is the one that was validated, not what a callback made of it afterwards."""

    class Spoil(ModelCallback):
        def __call__(self, epoch, batch):
            with torch.no_grad():
                self.model.get_input_embeddings().weight.fill_(0.0)

    plain = finetune_lm.run(ModelArguments(models["gpt2"]), arguments(files, epochs=1))
    args = ModelArguments(models["gpt2"], model_callbacks={"end_epoch": Spoil})
    finetune_lm.run(args, arguments(files, epochs=1, output_dir="spoiled"))
    one, two = (
        transformers.AutoModelForCausalLM.from_pretrained(directory / "model")
        for directory in (plain.output_dir, Path("spoiled"))
    )
    assert all(map(torch.equal, one.parameters(), two.parameters()))


def test_a_callback_may_leave_the_model_in_the_wrong_mode(models, files):
    class Trains(ModelCallback):
        def __call__(self, epoch, batch):
            self.model.train()

    class Evaluates(ModelCallback):
        def __call__(self, epoch, batch):
            self.model.eval()

    callbacks = {
        "pre_validation": [Trains],
        "pre_validation_batch": [Trains],
        "pre_train_batch": [Evaluates],
        "pre_test_batch": [Trains],
    }
    tables = []
    for name, given in (("a", {}), ("b", callbacks)):
        args = arguments(files, output_dir=name, test_file=[files["test"]])
        result = finetune_lm.run(ModelArguments(models["gpt2"], model_callbacks=given), args)
        tables.append(
            [p.read_bytes() for p in (Path(name, "metrics.csv.gz"), result.test_results_path)]
        )
    assert tables[0] == tables[1]


# Random numbers


class Gambler(ModelCallback):
    """Draws from every generator, whenever it can."""

    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self(None, None)

    def __call__(self, epoch, batch):
        heard.append((random.random(), float(np.random.normal()), float(torch.rand(()))))

    def after_step(self, epoch, batch):
        self(epoch, batch)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_what_callbacks_draw_changes_nothing_else(models, files, name):
    """Dropout, and masks that are drawn anew for each batch."""
    settings = {}
    if name == "bert":
        settings = {
            "data_preprocessing_fn": dict.fromkeys(
                ("train", "validation", "test"), mask_random_tokens
            ),
            "data_preprocessing_fn_strategy": dict.fromkeys(("train", "validation"), "per_batch"),
        }
    tables, drawn = [], []
    for directory, hooks in (("a", ()), ("b", HOOKS), ("c", HOOKS)):
        heard.clear()
        args = ModelArguments(
            models[name],
            model_task=family(name).task,
            model_callbacks=dict.fromkeys(hooks, Gambler),
        )
        finetune_lm.run(args, arguments(files, output_dir=directory, **settings))
        tables.append(Path(directory, "metrics.csv.gz").read_bytes())
        drawn.append(tuple(heard))
    assert tables[0] == tables[1] == tables[2]
    assert drawn[1] == drawn[2]
    assert len({numbers[i] for numbers in drawn[1] for i in range(3)}) == 3 * len(drawn[1])


def test_what_callbacks_draw_follows_from_the_seed(models, files):
    drawn = []
    for seed in (1, 2):
        heard.clear()
        args = ModelArguments(models["gpt2"], model_callbacks={"end_epoch": Gambler})
        finetune_lm.run(args, arguments(files, epochs=1, seed=seed, output_dir=str(seed)))
        drawn.append(tuple(heard))
    assert not set(drawn[0]) & set(drawn[1])


def test_generators_go_on_where_they_were_left():
    def draw():
        return random.random(), float(np.random.normal()), float(torch.rand(()))

    own, again = OwnRandomness(3), OwnRandomness(4)
    assert own.state_dict() == {}
    with own:
        first = draw()
    again.load_state_dict(own.state_dict())
    outside = draw()
    with own:
        second = draw()
    with again:
        assert draw() == second
    assert len({*first, *second, *outside}) == 9
    fresh = OwnRandomness(3)
    fresh.load_state_dict({})
    with fresh:
        assert draw() == first


def test_an_error_leaves_the_runs_generators_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)

    def fail():
        with OwnRandomness(3):
            torch.rand(5)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert torch.equal(torch.rand(3), expected)


# Ways to write one


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
