"""When callbacks are called in a run, what they are told, and what they find."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

import finetune_lm
from callback_runs import Recorder, arguments, heard
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.data_preprocessing import identity, remove_non_mask_tokens_from_labels
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.model_modifiers import ModelCallback
from helpers import write_lines

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


def drop_ends(inputs, tokenizer):
    """Leaves nothing of the first and the last text."""
    kept = [" has " in text for text in tokenizer.batch_decode(inputs["input_ids"])]
    made = {key: tensor[torch.tensor(kept)] for key, tensor in inputs.items()}
    return {**made, "expanded_lengths": torch.tensor(kept).long()}


def test_a_batch_of_which_preprocessing_leaves_nothing_is_none(models, files, tmp_path):
    texts = ["The man saw.", "The man has seen.", "The man has drunk.", "The man drank."]
    args = arguments(
        {**files, "train": write_lines(tmp_path / "some.txt.gz", texts)},
        data_preprocessing_fn={"train": drop_ends},
        data_preprocessing_fn_strategy={"train": "per_batch"},
        per_device_train_batch_size=1,
        shuffle_train=False,
        epochs=1,
    )
    finetune_lm.run(ModelArguments(models["gpt2"], **EVERYWHERE), args)
    of_training = [entry for entry in heard if "train_" in entry[0]]
    assert of_training == [*train_batch(0, 0), *train_batch(0, 1)]


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
    from finetune_lm.recording.recorder import Recorders

    batch = Recorders.batch

    def told(recorders, measured):
        if measured.split.dataset_type == "train":
            heard.append(("rows", None, None))
        batch(recorders, measured)

    monkeypatch.setattr(Recorders, "batch", told)
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
