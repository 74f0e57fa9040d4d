"""Whole runs from Python, on small random models in local directories."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from families import family
from finetune_lm import DataTrainingArguments, UserError
from finetune_lm.data_preprocessing import remove_non_mask_tokens_from_labels
from finetune_lm.recording.columns import table_columns
from helpers import write_lines
from short_runs import TRAIN, VALIDATION, run, scale_embeddings, train_args

pytest_plugins = ["short_runs"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_what_a_run_leaves_behind(models, files, tmp_path):
    result = run(models["gpt2"], train_args(files, test_file=[files["test"]]))
    assert result.output_dir.resolve() == tmp_path / "out"
    prefix = models["gpt2"].replace("/", "-")
    assert sorted(path.name for path in result.output_dir.iterdir()) == sorted(
        [
            *("metrics.csv.gz", f"{prefix}-test_results.csv.gz", "config.txt", "config.yaml"),
            *("run.json", "loss_curves.pdf", "model", "tokenizer"),
        ]
    )
    metrics, tests = result.metrics, result.test_results
    losses = ["loss", "OutputsDefaultLoss"]
    assert list(metrics.columns) == table_columns(losses=losses, metadata=["kind"])
    assert list(tests.columns) == table_columns(losses=[], metadata=[])
    assert sorted(metrics["epoch"].unique()) == [0, 1, 2]
    train = metrics[metrics["dataset_type"] == "train"]
    assert set(train["batch_number"]) == {0, 1, 2}
    assert set(train["kind"]) == {"active"}
    assert metrics[metrics["dataset_type"] == "validation"]["kind"].isna().all()
    assert set(train["item"]) == {f"i{i}" for i in range(len(TRAIN))}
    assert set(metrics["dataset_name"]) == {"teach", "check"}
    assert set(metrics["model_name"]) == set(tests["model_name"]) == {models["gpt2"]}
    assert set(metrics["n_params"]) == {"14K"}
    assert set(metrics["seed"]) == {5}
    assert set(tests["epoch"]) == {result.best_epoch}
    # Every token of every sentence in every epoch.
    tokenizer = family("gpt2").tokenizer
    n_tokens = {text: len(tokenizer(text)["input_ids"]) for text in TRAIN + VALIDATION}
    assert len(metrics) == 3 * sum(n_tokens.values())
    assert len(tests) == sum(n_tokens.values())
    record = json.loads((result.output_dir / "run.json").read_text())
    assert record["start_tokens"] == ["<|endoftext|>"]
    assert "start_tokens: <|endoftext|>" in (result.output_dir / "config.txt").read_text()
    assert record["state"] == "finished"
    assert record["epochs"] == 3
    assert record["metrics_rows"] == len(metrics)
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"] == "cpu"


def test_the_same_command_gives_the_same_bytes(models, files):
    first, second, other = (
        run(models["gpt2"], train_args(files, test_file=[files["test"]], output_dir=d, seed=s))
        for d, s in (("a", 5), ("b", 5), ("c", 6))
    )
    for name in ("metrics.csv.gz", first.test_results_path.name):
        bytes_of = [(r.output_dir / name).read_bytes() for r in (first, second, other)]
        assert bytes_of[0] == bytes_of[1]
        assert bytes_of[0] != bytes_of[2]


def test_documented_defaults_go_through(models, files):
    args = DataTrainingArguments(
        train_file=files["train"], validation_file=files["validation"], epochs=1
    )
    result = run(models["gpt2"], args)
    assert result.output_dir.parent.parent.name == "teach"
    assert args.lr == 2e-6
    assert args.optimizer_kwargs() == {"lr": 2e-6, "weight_decay": 0}


def test_the_value_on_the_instance_is_the_one_used(models, files):
    args = train_args(files, epochs=1, validation_file=files["train"], shuffle_train=False)
    args.lr = 0.0
    result = run(models["gpt2"], args)
    untouched = run(
        models["gpt2"], DataTrainingArguments(test_file=[files["train"]], output_dir="c")
    ).test_results
    validation = result.metrics[result.metrics["dataset_type"] == "validation"]
    np.testing.assert_allclose(
        validation["surprisal"].to_numpy(), untouched["surprisal"].to_numpy(), atol=1e-4
    )
    assert "lr: 0.0" in (result.output_dir / "config.yaml").read_text()


def test_modifiers_come_before_the_run(models, files):
    args = {"test_file": [files["test"]], "seed": 1}
    plain = run(models["gpt2"], DataTrainingArguments(output_dir="a", **args))
    changed = run(
        models["gpt2"],
        DataTrainingArguments(output_dir="b", **args),
        model_modifier_fns=[scale_embeddings],
        model_modifier_fn_kwargs={"scale_embeddings": {"amount": 0.5}},
    )
    assert not np.allclose(plain.test_results["surprisal"], changed.test_results["surprisal"])


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_masked_run(models, files, tmp_path, name):
    tokenizer = family(name).tokenizer
    mask = tokenizer.mask_token
    pairs = [
        {
            "text": text.replace("the ", f"{mask} " if name == "bert" else mask + " ", 1),
            "labels": text,
        }
        for text in TRAIN
        if " the " in text
    ]
    same = [
        p
        for p in pairs
        if len(tokenizer(p["text"])["input_ids"]) == len(tokenizer(p["labels"])["input_ids"])
    ]
    assert same
    path = write_lines(tmp_path / "masked.json.gz", same)
    function = dict.fromkeys(("train", "validation", "test"), remove_non_mask_tokens_from_labels)
    files = {"train": path, "validation": path}
    args = train_args(files, test_file=[path], data_preprocessing_fn=function)
    result = run(models[name], args, model_task="mlm")
    metrics = result.metrics
    assert len(metrics) == 3 * 2 * len(same)
    assert len(result.test_results) == len(same)
    assert set(metrics["word"]) == {"the"}
    assert (metrics["original_text"] != metrics["input_label"]).all()
    assert metrics["input_text"].str.contains(mask, regex=False).all()
    for _, batch in metrics.groupby(["dataset_type", "epoch", "batch_number"]):
        assert batch["loss"].iloc[0] == pytest.approx(
            batch["surprisal"].mean() * math.log(2), rel=1e-4
        )


def test_a_seq2seq_run(models, files, tmp_path):
    lines = [{"text": text, "labels": "broken the glass"} for text in TRAIN]
    path = write_lines(tmp_path / "pairs.json.gz", lines)
    result = run(models["t5"], train_args({"train": path, "validation": path}, test_file=[path]))
    for frame in (result.metrics, result.test_results):
        columns = list(frame.columns)
        assert columns.index("sequence_type") == columns.index("input_label") + 1
        counts = frame["sequence_type"].value_counts()
        assert counts["label_sequence"] == counts["generated_sequence"]
    labels = result.metrics[result.metrics["sequence_type"] == "label_sequence"]
    for _, batch in labels.groupby(["dataset_type", "epoch", "batch_number"]):
        assert batch["loss"].iloc[0] == pytest.approx(
            batch["surprisal"].mean() * math.log(2), rel=1e-4
        )
    assert [w for w in labels["word"].unique() if isinstance(w, str)] == ["broken", "the", "glass"]


def test_several_test_files_in_one_table(models, files, tmp_path):
    (tmp_path / "other").mkdir()
    same_name = write_lines(tmp_path / "other" / "probe.txt.gz", ["A man."], [{"k": 3}])
    args = DataTrainingArguments(test_file=[files["test"], same_name, files["validation"]])
    result = run(models["gpt2"], args)
    model = models["gpt2"].replace("/", "-")
    assert str(result.output_dir) == f"outputs/test_only/{model}"
    names = result.test_results["dataset_name"].unique().tolist()
    assert names[2] == "check"
    assert [name.split("/")[-2:] for name in names[:2]] == [["files", "probe"], ["other", "probe"]]
    assert result.test_results.groupby("dataset_name")["k"].first().dropna().tolist() == [3]
    assert result.metrics is None
    assert result.best_loss is None
    assert result.test_results["epoch"].isna().all()
    assert (result.output_dir / "config.txt").exists()


def test_a_prefix_for_the_test_table(models, files):
    args = DataTrainingArguments(test_file=[files["test"]], test_output_file_prefix="a/b")
    assert run(models["gpt2"], args).test_results_path.name == "a-b-test_results.csv.gz"


def test_the_same_test_twice_replaces_its_table(models, files):
    args = {"test_file": [files["test"]]}
    first = run(models["gpt2"], DataTrainingArguments(**args)).test_results
    second = run(models["gpt2"], DataTrainingArguments(**args)).test_results
    pd.testing.assert_frame_equal(first.drop(columns="seed"), second.drop(columns="seed"))
    with pytest.raises(UserError, match="made with another test_file"):
        run(models["gpt2"], DataTrainingArguments(test_file=[files["validation"]]))


def test_another_runs_results_are_not_overwritten(models, files):
    run(models["gpt2"], train_args(files, epochs=1))
    with pytest.raises(UserError, match="must not have results of another run"):
        run(models["gpt2"], train_args(files, epochs=1))


def test_samples_are_cut_alike(models, files):
    args = train_args(
        files,
        max_train_samples=2,
        max_validation_samples=1,
        max_test_samples=99,
        test_file=[files["test"]],
    )
    result = run(models["gpt2"], args)
    by_type = result.metrics.groupby("dataset_type")["example_num"].nunique()
    assert by_type.to_dict() == {"train": 2, "validation": 1}
    assert result.test_results["example_num"].nunique() == 7


def test_a_text_of_one_unpredicted_token_has_its_row_whatever_the_batch(models, files, tmp_path):
    """Nothing predicts it, so alone in a batch it has no loss; its row is there all the same."""
    path = write_lines(tmp_path / "short.txt.gz", ["The", "The man drank the water."])
    tables = [
        run(
            models["gpt2"],
            train_args(
                {"train": path, "validation": path},
                bos_policy="none",
                epochs=1,
                shuffle_train=False,
                per_device_train_batch_size=size,
                per_device_validation_batch_size=size,
                output_dir=f"out{size}",
            ),
        ).metrics
        for size in (1, 2)
    ]
    for table in tables:
        short = table[table["example_num"] == 0]
        assert short["token"].tolist() == ["The", "The"]
        assert short["surprisal"].isna().all()
    assert tables[0][tables[0]["example_num"] == 0]["loss"].isna().all()
    assert [len(table) for table in tables] == [len(tables[0])] * 2
