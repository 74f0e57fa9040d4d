"""What is said, kept and left behind where something goes wrong in a run, or its input is bad."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import transformers

import finetune_lm
from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.arguments import DELETE_FIELD
from finetune_lm.data_preprocessing import remove_non_mask_tokens_from_labels
from finetune_lm.loss_classes import OutputsDefaultLoss
from helpers import write_lines
from short_runs import TimesTwo, run, scale_embeddings, train_args

pytest_plugins = ["short_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_tables(models, files):
    class Nan(OutputsDefaultLoss):
        n = 0

        def __call__(self, outputs, labels):
            Nan.n += 1
            return outputs.loss * (math.nan if Nan.n == 5 else 1.0)

    args = train_args(files, loss_classes={"train": [Nan], "validation": [OutputsDefaultLoss]})
    with pytest.raises(
        UserError, match="must be finite but in epoch 1, train batch 1, came loss nan"
    ):
        run(models["gpt2"], args)
    metrics = finetune_lm.load_metrics("out")
    assert metrics["epoch"].max() == 1
    assert set(metrics[metrics["epoch"] == 1]["batch_number"]) == {0}
    record = json.loads(Path("out/run.json").read_text())
    assert record["state"] == "failed"
    assert "must be finite" in record["error"]
    assert transformers.AutoModelForCausalLM.from_pretrained("out/model")


def test_nan_in_the_first_epoch(models, files):
    args = train_args(files, train_optimizer_kwargs={"lr": 1e20})
    with pytest.raises(UserError, match="must be finite but in epoch 0"):
        run(models["gpt2"], args)


def test_a_full_disk_is_told_in_words(models, files, monkeypatch):
    from finetune_lm.recording.tables import TableWriter

    end_piece, calls = TableWriter.end_piece, []

    def full(self):
        calls.append(1)
        if len(calls) == 2:
            self._piece = None
            raise OSError(errno.ENOSPC, "No space left on device")
        end_piece(self)

    monkeypatch.setattr(TableWriter, "end_piece", full)
    with pytest.raises(UserError, match="cannot be written to: No space left on device"):
        run(models["gpt2"], train_args(files))
    assert set(finetune_lm.load_metrics("out")["epoch"]) == {0}


def test_a_plot_that_fails_costs_nothing_else(models, files, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("finetune_lm.recording.curves.save_loss_curves", broken)
    result = run(models["gpt2"], train_args(files, epochs=1))
    assert "warning: the loss curves could not be plotted" in capsys.readouterr().err
    assert (result.output_dir / "model").is_dir()
    assert len(result.metrics)


@pytest.fixture
def no_model_is_loaded(monkeypatch):
    def fail(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("finetune_lm.models.loading.load_model", fail)


@pytest.mark.usefixtures("no_model_is_loaded")
def test_mistakes_are_found_before_a_model_is_loaded(files, tmp_path):
    bad = write_lines(tmp_path / "bad.json.gz", [{"text": 1}])
    with pytest.raises(UserError) as caught:
        run("gpt2", train_args({"train": bad, "validation": "nothing.txt.gz"}, test_file=["n.txt"]))
    assert len(caught.value.problems) == 3

    clash = write_lines(tmp_path / "clash.txt.gz", ["a"], [{"TimesTwo": 1}])
    losses = {"train": [TimesTwo], "validation": [OutputsDefaultLoss]}
    with pytest.raises(UserError, match="must not have the key 'TimesTwo'"):
        run("gpt2", train_args({**files, "train": clash}, loss_classes=losses))

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="output_dir must be a directory"):
        run("gpt2", train_args(files, output_dir="file/x"))
    with pytest.raises(UserError, match="validation_file"):
        run("gpt2", DataTrainingArguments(train_file=files["train"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bad.json.gz", "clash.txt.gz", "clash_metadata.json.gz", "file", "files",
    ]  # fmt: skip


def test_mistakes_found_after_loading_write_nothing(models, files, tmp_path):
    cases = [
        ({"train_optimizer_kwargs": {"lrr": 1}}, "train_optimizer AdamW does not take"),
        ({"max_length": 1}, "max_length must leave room"),
        (
            {"loss_classes_kwargs": {"train": {"OutputsDefaultLoss": {"x": 1}}, "validation": {}}},
            "OutputsDefaultLoss must accept model, tokenizer and what loss_classes_kwargs gives",
        ),
        (
            {"data_preprocessing_fn": {"train": remove_non_mask_tokens_from_labels}},
            "remove_non_mask_tokens_from_labels is for masked language models",
        ),
    ]
    for kwargs, message in cases:
        if "data_preprocessing_fn" in kwargs:
            from finetune_lm.data_preprocessing import identity

            kwargs["data_preprocessing_fn"] |= {"validation": identity, "test": identity}
        with pytest.raises(UserError, match=message):
            run(models["gpt2"], train_args(files, **kwargs))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such-model", "'no/such-model' is no directory here, and cannot be loaded as config"),
        ("files", "'files' is a directory that cannot be loaded as config"),
    ],
)
def test_a_model_that_is_not_there(files, name, message):
    with pytest.raises(UserError) as caught:
        run(name, DataTrainingArguments(test_file=[files["test"]]))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_test_evaluation_goes_on_where_it_was_stopped(models, files, monkeypatch):
    from finetune_lm.scoring.forward import Forward

    whole = run(
        models["gpt2"],
        DataTrainingArguments(
            test_file=[files["test"], files["validation"]],
            per_device_test_batch_size=2,
            output_dir="whole",
            seed=3,
        ),
    )
    args = {
        "test_file": [files["test"], files["validation"]],
        "per_device_test_batch_size": 2,
        "output_dir": "parts",
        "save_tmp_test_files": True,
        "seed": 3,
    }
    calls = []
    forward = Forward.__call__

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*arguments, **options)

    monkeypatch.setattr(Forward, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        run(models["gpt2"], DataTrainingArguments(**args))
    assert [p.name for p in Path("parts").glob("*.json.gz")] == ["tmp-test-0-probe.json.gz"]
    calls[:] = [1] * 10
    result = run(models["gpt2"], DataTrainingArguments(**args))
    assert len(calls) == 10 + 5 - 2
    assert result.test_results_path.read_bytes() == whole.test_results_path.read_bytes()
    assert not list(result.output_dir.glob("tmp-*"))


def test_temporary_files_of_other_data_are_not_taken_up(models, files, tmp_path):
    from finetune_lm.evaluation.unfinished_tests import EvaluationProgress

    path = tmp_path / "tmp.json.gz"
    table = pa.table({"word": ["a"]})
    EvaluationProgress(path, {"data": 1}).add(table)
    assert EvaluationProgress(path, {"data": 2}).finished_batches() == []
    assert not path.exists()


def test_interrupted_training_keeps_the_best_model(models, files, monkeypatch):
    from finetune_lm.training import loop

    train_epoch = loop.train_epoch

    def interrupted(run, learner, split, state, *rest):
        if state.progress.epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(run, learner, split, state, *rest)

    monkeypatch.setattr(loop, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(models["gpt2"], train_args(files))
    assert set(finetune_lm.load_metrics("out")["epoch"]) == {0, 1}
    assert transformers.AutoModelForCausalLM.from_pretrained("out/model")
    assert json.loads(open("out/run.json").read())["state"] == "interrupted"  # noqa: PTH123, SIM115


def test_a_run_that_ended_before_its_first_step_does_not_block_the_next(models, files):
    class Fails:
        def __init__(self, model, tokenizer):
            pass

        def __call__(self, outputs, labels):
            return outputs.loss * math.nan

    losses = {"train": [Fails], "validation": [OutputsDefaultLoss]}
    with pytest.raises(UserError, match="must be finite but in epoch 0, train batch 0"):
        run(models["gpt2"], train_args(files, loss_classes=losses))
    assert len(run(models["gpt2"], train_args(files)).metrics)


def test_a_test_file_given_twice(models, files):
    with pytest.raises(UserError, match=r"must be given once but .*probe.txt.gz is given 2 times"):
        run(models["gpt2"], DataTrainingArguments(test_file=[files["test"]] * 2))


def no_such_argument(inputs, tokenizer):
    return inputs


class ConstantLoss:
    def __init__(self, model, tokenizer):
        pass

    def __call__(self, outputs, labels):
        return torch.tensor(1.0)


class surprisal(OutputsDefaultLoss):  # noqa: N801
    pass


WITHOUT_DECAY = {"weight_decay": DELETE_FIELD}
BAD_PARTS = {
    "preprocessing kwargs": (
        {
            "data_preprocessing_fn": {"train": no_such_argument},
            "data_preprocessing_fn_kwargs": {"train": {"foo": 3}},
        },
        "data_preprocessing_fn_kwargs.train.foo is not an argument of no_such_argument",
    ),
    "no gradient": (
        {"loss_classes": {"train": [ConstantLoss]}},
        "it gets no gradient from Constant",
    ),
    "name of a column": (
        {"loss_classes": {"train": [surprisal]}},
        "must not have the name of a column",
    ),
    "reduction": (
        {"loss_reduction_fns": {"train": torch.add}},
        "add must take a tensor of all losses",
    ),
    "LBFGS": (
        {"train_optimizer": torch.optim.LBFGS, "train_optimizer_kwargs": WITHOUT_DECAY},
        "whose step needs only gradients, but is LBFGS",
    ),
    "no optimizer": ({"train_optimizer": dict}, "must be an optimizer like torch.optim.AdamW"),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_parts_that_do_not_fit(models, files, case):
    kwargs, message = BAD_PARTS[case]
    with pytest.raises(UserError, match=message):
        run(models["gpt2"], train_args(files, **kwargs))


def test_a_modifier_with_arguments_that_it_does_not_take(models, files):
    with pytest.raises(
        UserError, match="x is not an argument of scale_embeddings, which takes amount"
    ):
        run(
            models["gpt2"],
            train_args(files),
            model_modifier_fns=[scale_embeddings],
            model_modifier_fn_kwargs={"scale_embeddings": {"x": 1}},
        )


def test_a_model_that_cannot_be_saved_costs_no_table(models, files, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("I/O error: No space left on device")

    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(UserError, match="the model cannot be saved in out: I/O error"):
        run(models["gpt2"], train_args(files))
    assert len(finetune_lm.load_metrics("out"))
    assert Path("out/loss_curves.pdf").exists()
    assert json.loads(Path("out/run.json").read_text())["state"] == "failed"


def test_the_token_is_in_no_record(models, files, monkeypatch):
    Path("token").write_text("hf_secret")

    def leak(*_):
        raise RuntimeError("401 for token hf_secret")

    monkeypatch.setattr("finetune_lm.training.loop.train_epoch", leak)
    with pytest.raises(RuntimeError):
        run(models["gpt2"], train_args(files), token="token")
    assert "hf_secret" not in Path("out/run.json").read_text()
    assert "<token>" in Path("out/run.json").read_text()
