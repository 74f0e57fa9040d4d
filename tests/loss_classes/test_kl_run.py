"""The KL term in whole runs, through the command line and from Python."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import pytest
import yaml

import finetune_lm
from crashing import difference
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.cli import main
from finetune_lm.data import reading_examples
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.loss_classes._kl_data import BaselineData
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from helpers import write_lines

DATA = Path(__file__).parents[2] / "data" / "nonce_verb"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*more, model="tiny-lm", train="active.txt.gz", validation="passive.txt.gz"):
    return main(
        [
            *("--model_name_or_path", model, "--seed", "3", "--epochs", "2"),
            *("--train_file", str(DATA / f"flomped_{train}"), "--max_train_samples", "8"),
            *("--validation_file", str(DATA / f"flomped_{validation}")),
            *("--max_validation_samples", "6", "--per_device_train_batch_size", "4"),
            *("--train_optimizer_kwargs.lr", "1e-3", "--output_dir", "out"),
            *("--save_best_model_state_to_disk", "False"),
            *map(str, more),
        ]
    )


TWO = ("loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss")
KL = "--loss_classes_kwargs.train.KLBaselineLoss"


def test_it_has_its_column_and_is_part_of_what_is_minimised(monkeypatch):
    sentences = DATA / "sentences.txt.gz"
    read, usual = [], reading_examples._read_examples
    monkeypatch.setattr(
        reading_examples, "_read_examples", lambda *args: read.append(args[0]) or usual(*args)
    )
    more = ("--loss_classes.train", *TWO, f"{KL}.dataset", sentences, f"{KL}.scaleby", 10)
    assert command(*more) == 0
    assert len(read) == len(set(read)) == 3
    table = finetune_lm.load_metrics("out")
    train = table[table["dataset_type"] == "train"]
    assert (train["KLBaselineLoss"] > 0).all()
    total = train["OutputsDefaultLoss"] + train["KLBaselineLoss"]
    assert (total - train["loss"]).abs().max() < 1e-5
    assert table[table["dataset_type"] == "validation"]["KLBaselineLoss"].isna().all()
    record = json.loads(Path("out/run.json").read_text())
    assert record["data"]["loss"] == {str(sentences): 1000}
    assert str(sentences) in record["data_sha256"]
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    assert config["loss_classes_kwargs"]["train"]["KLBaselineLoss"]["scaleby"] == 10


def test_a_larger_weight_keeps_the_model_closer_to_its_baseline():
    """The divergence itself, without its weight, after the same number of steps."""
    moved = {}
    for weight in (0.01, 100):
        result = finetune_lm.run(
            ModelArguments("tiny-lm"),
            DataTrainingArguments(
                train_file=str(DATA / "flomped_active.txt.gz"),
                validation_file=str(DATA / "flomped_passive.txt.gz"),
                max_validation_samples=4,
                epochs=2,
                train_optimizer_kwargs={"lr": 1e-3},
                loss_classes={
                    "train": [OutputsDefaultLoss, KLBaselineLoss],
                    "validation": [OutputsDefaultLoss, KLBaselineLoss],
                },
                loss_classes_kwargs={
                    dataset_type: {
                        "KLBaselineLoss": {
                            "dataset": str(DATA / "sentences.txt.gz"),
                            "scaleby": scaleby,
                            "n_examples_per_batch": 50,
                        }
                    }
                    for dataset_type, scaleby in (("train", weight), ("validation", 1.0))
                },
                save_best_model_state_to_disk=False,
                seed=1,
                output_dir=f"weight_{weight}",
            ),
        )
        table = result.metrics
        validation = table[(table["dataset_type"] == "validation") & (table["epoch"] == 1)]
        moved[weight] = validation["KLBaselineLoss"].mean()
    assert moved[100] < 0.5 * moved[0.01]


def test_two_terms_of_one_class_have_numbers_and_arguments_of_their_own():
    kwargs = "--loss_classes_kwargs.train"
    done = command(
        *("--loss_classes.train", *TWO, TWO[1]),
        *(f"{kwargs}.KLBaselineLoss.dataset", DATA / "sentences.txt.gz"),
        *(f"{kwargs}.KLBaselineLoss.dropout", "False"),
        *(f"{kwargs}.KLBaselineLoss_1.scaleby", 1),
        *(f"{kwargs}.KLBaselineLoss_2.scaleby", 3),
    )
    assert done == 0
    table = finetune_lm.load_metrics("out")
    train = table[(table["dataset_type"] == "train") & (table["epoch"] == 1)]
    # Each draws examples of its own, of which the divergence is about the same.
    ratio = train["KLBaselineLoss_2"] / train["KLBaselineLoss_1"]
    assert (ratio != 3).all()
    assert ratio.between(1, 9).all()
    total = train[["OutputsDefaultLoss", "KLBaselineLoss_1", "KLBaselineLoss_2"]].sum(axis=1)
    assert (total - train["loss"]).abs().max() < 1e-5


@pytest.fixture
def draws(monkeypatch):
    """Which examples each loss has drawn, call by call, in the order in which losses are made."""
    by_loss = {}
    original = KLBaselineLoss._draw

    def draw(self, source, data):
        rows = original(self, source, data)
        by_loss.setdefault(id(self), []).append(sorted(rows.tolist()))
        return rows

    monkeypatch.setattr(KLBaselineLoss, "_draw", draw)
    return by_loss


def with_kl(output_dir="out", n_kl=1, **changed):
    """A run with the same sentences in training and validation: 3 and 2 batches, 3 epochs."""
    kl = {"KLBaselineLoss": {"dataset": str(DATA / "sentences.txt.gz"), "n_examples_per_batch": 5}}
    given = {
        "train_file": str(DATA / "flomped_active.txt.gz"),
        "validation_file": str(DATA / "flomped_passive.txt.gz"),
        "max_train_samples": 6,
        "max_validation_samples": 3,
        "per_device_train_batch_size": 2,
        "per_device_validation_batch_size": 2,
        "epochs": 3,
        "train_optimizer_kwargs": {"lr": 1e-3},
        "loss_classes": {
            key: [OutputsDefaultLoss, *([KLBaselineLoss] * n_kl)] for key in ("train", "validation")
        },
        "loss_classes_kwargs": {"train": kl, "validation": kl},
        "save_best_model_state_to_disk": False,
        "seed": 1,
        "output_dir": output_dir,
        **changed,
    }
    return finetune_lm.run(ModelArguments("tiny-lm"), DataTrainingArguments(**given))


def test_every_loss_draws_from_a_stream_of_its_own(draws):
    with_kl(n_kl=2)
    # In the order of their first calls: training before validation.
    training, validation = list(draws.values())[:2], list(draws.values())[2:]
    assert [len(each) for each in training] == [9, 9]
    assert [len(each) for each in validation] == [6, 6]
    # In training every draw is another, and none is drawn by another loss.
    everything = [tuple(draw) for each in training for draw in each]
    # In validation each epoch draws the same, and what no other loss draws.
    for each in validation:
        assert each[:2] == each[2:4] == each[4:]
        everything += [tuple(draw) for draw in each[:2]]
    assert len(set(everything)) == len(everything)


def test_what_is_drawn_does_not_depend_on_other_losses(draws):
    with_kl()
    alone = list(draws.values())
    draws.clear()
    with_kl("again", n_kl=2)
    assert [list(draws.values())[i] for i in (0, 2)] == alone


def test_masks_drawn_anew_are_the_same_at_every_validation(draws):
    """What the untouched model itself would lose: nothing has changed but masks, if these had."""
    kl = {
        "dataset": str(DATA / "sentences.txt.gz"),
        "n_examples_per_batch": 5,
        "data_preprocessing_fn": mask_random_tokens,
        "data_preprocessing_fn_strategy": "per_batch",
        "data_preprocessing_fn_kwargs": {"mask_prop": 0.3},
    }
    found = []
    original = BaselineData.batches

    def batches(self, example, batch_size):
        made = original(self, example, batch_size)
        found.append([batch.inputs["input_ids"].tolist() for batch in made])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaselineData, "batches", batches)
        finetune_lm.run(
            ModelArguments("tiny-mlm"),
            DataTrainingArguments(
                train_file=str(DATA / "flomped_mlm_train.json.gz"),
                validation_file=str(DATA / "flomped_mlm_validation.json.gz"),
                max_train_samples=2,
                max_validation_samples=2,
                epochs=3,
                loss_classes={"validation": [OutputsDefaultLoss, KLBaselineLoss]},
                loss_classes_kwargs={"validation": {"KLBaselineLoss": kl}},
                save_best_model_state_to_disk=False,
                seed=1,
                output_dir="out",
            ),
        )
    first, *others = found
    assert others == [first, first]


@pytest.mark.parametrize("call", [4, 7])
def test_a_run_that_is_stopped_draws_on_as_if_it_had_not_been(call, monkeypatch):
    """In a validation, and in the second epoch."""
    whole = with_kl("whole").output_dir
    calls = itertools.count(1)
    original = Forward.__call__

    def forward(*args, **kwargs):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(Interrupted):
        with_kl("parts")
    finetune_lm.resume("parts")
    assert difference(whole, Path("parts")) == []


def test_the_validation_loss_weighs_each_loss_by_what_it_is_a_mean_over():
    """The cross-entropy by labels, the divergence by its examples, of which each batch has 5."""
    result = with_kl()
    table = result.metrics
    rows = table[(table["dataset_type"] == "validation") & (table["epoch"] == result.best_epoch)]
    batches = rows.groupby("batch_number").agg(
        n=("token", "size"), ce=("OutputsDefaultLoss", "first"), kl=("KLBaselineLoss", "first")
    )
    assert batches["n"].nunique() == 2
    expected = (batches["ce"] * batches["n"]).sum() / batches["n"].sum() + batches["kl"].mean()
    assert result.best_loss == pytest.approx(expected, rel=1e-6)


def test_a_run_with_it_can_be_repeated_to_the_byte():
    more = ("--loss_classes.train", *TWO, f"{KL}.dataset", DATA / "sentences.txt.gz")
    assert command(*more) == 0
    first = Path("out/metrics.csv.gz").read_bytes()
    assert main(["--config", "out/config.yaml", "--output_dir", "again"]) == 0
    assert Path("again/metrics.csv.gz").read_bytes() == first


def test_return_all_can_be_trained_with():
    more = ("--loss_classes.train", *TWO, f"{KL}.dataset", DATA / "sentences.txt.gz")
    assert command(*more, f"{KL}.return_all", f"{KL}.n_examples_per_batch", "None",
                   f"{KL}.max_samples_per_dataset", 5) == 0  # fmt: skip
    table = finetune_lm.load_metrics("out")
    assert (table[table["dataset_type"] == "train"]["KLBaselineLoss"] > 0).all()


@pytest.mark.parametrize(
    ("model", "function", "train", "validation"),
    [
        ("tiny-mlm", "mask_random_tokens", "mlm_train.json.gz", "mlm_validation.json.gz"),
        (
            "tiny-seq2seq",
            "mask_random_spans",
            "seq2seq_train.json.gz",
            "seq2seq_validation.json.gz",
        ),
    ],
)
@pytest.mark.parametrize("strategy", ["once", "per_batch"])
def test_masked_and_seq2seq_models(model, function, train, validation, strategy):
    done = command(
        *("--loss_classes.train", *TWO, f"{KL}.dataset", DATA / "sentences.txt.gz"),
        *(f"{KL}.data_preprocessing_fn", f"data_preprocessing.{function}"),
        *(f"{KL}.data_preprocessing_fn_strategy", strategy, f"{KL}.max_samples_per_dataset", 40),
        *(f"{KL}.batch_size", 7),
        model=model,
        train=train,
        validation=validation,
    )
    assert done == 0
    table = finetune_lm.load_metrics("out")
    losses = table[table["dataset_type"] == "train"].groupby(["epoch", "batch_number"])
    divergences = losses["KLBaselineLoss"].first()
    # Before the first step there is nothing to diverge from in a model without dropout.
    assert (divergences >= 0).all()
    assert divergences.iloc[-1] > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "loss_classes_kwargs.train.KLBaselineLoss: dataset must be given"),
        ((f"{KL}.dataset", "./none.txt.gz"), "KLBaselineLoss: there is no file ./none.txt.gz."),
        ((f"{KL}.dataset", "./bad.txt.gz"), "./bad.txt.gz, line 2: must not be blank."),
        (
            (f"{KL}.dataset", "./good.txt.gz", f"{KL}.scaleby", "-2"),
            "scaleby must be a number of at least 0 but got -2.",
        ),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(more, message, tmp_path, capsys):
    write_lines(tmp_path / "bad.txt.gz", ["One.", " ", "Three."])
    write_lines(tmp_path / "good.txt.gz", ["One."])
    assert command("--loss_classes.train", *TWO, *more, model="no/such-model") == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()
