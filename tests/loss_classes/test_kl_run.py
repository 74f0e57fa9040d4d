"""The KL term in whole runs, through the command line and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.cli import main
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
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


def test_it_has_its_column_and_is_part_of_what_is_minimised():
    sentences = DATA / "sentences.txt.gz"
    more = ("--loss_classes.train", *TWO, f"{KL}.dataset", sentences, f"{KL}.scaleby", 10)
    assert command(*more) == 0
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
    # Both draw the same examples from the same seed.
    ratio = train["KLBaselineLoss_2"] / train["KLBaselineLoss_1"]
    assert (ratio - 3).abs().max() < 1e-3
    total = train[["OutputsDefaultLoss", "KLBaselineLoss_1", "KLBaselineLoss_2"]].sum(axis=1)
    assert (total - train["loss"]).abs().max() < 1e-5


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
