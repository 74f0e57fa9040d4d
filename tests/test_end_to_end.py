"""The real command line on the built-in models and data, every output file looked at."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import transformers
import yaml

import finetune_lm
from commands import run_command, run_new_process
from finetune_lm.cli import main

BUILTIN = Path(finetune_lm.__file__).parent / "models" / "builtin"
DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
KINDS = {
    "tiny-lm": ("lm", "flomped_active.txt.gz", "flomped_passive.txt.gz", "flomped_test.txt.gz"),
    "tiny-mlm": (
        "mlm",
        *(f"flomped_mlm_{part}.json.gz" for part in ("train", "validation", "test")),
    ),
    "tiny-seq2seq": (
        "seq2seq",
        *(f"flomped_seq2seq_{part}.json.gz" for part in ("train", "validation", "test")),
    ),
}
AUTO = {
    "lm": "AutoModelForCausalLM",
    "mlm": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


@pytest.mark.usefixtures("drawn_pages")
@pytest.mark.parametrize("model", KINDS)
def test_a_run_of_each_kind(tmp_path, monkeypatch, model):
    task, train, validation, test = KINDS[model]
    settings = ["--max_train_samples", 24, "--max_validation_samples", 8, "--max_test_samples", 12]
    if task == "mlm":
        for part in ("train", "validation", "test"):
            settings += [
                f"--data_preprocessing_fn.{part}",
                "data_preprocessing.remove_non_mask_tokens_from_labels",
            ]
    # Once as a user does it, from the start of Python on.
    command = run_new_process if model == "tiny-lm" else run_command
    done = command(
        *("--model_name_or_path", model, "--epochs", 2, "--train_optimizer_kwargs.lr", "1e-3"),
        *("--train_file", DATA / train, "--validation_file", DATA / validation),
        *("--test_file", DATA / test, "--per_device_train_batch_size", 8, "--seed", 3),
        *settings,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [output_dir] = tmp_path.glob(f"outputs/{train.split('.')[0]}/{model}/*")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d\.\d{9}", output_dir.name)
    assert str(output_dir.relative_to(tmp_path)) in done.stderr
    assert sorted(path.name for path in output_dir.iterdir()) == sorted(
        [
            *("config.txt", "config.yaml", "run.json", "loss_curves.pdf", "metrics.csv.gz"),
            *("model", "tokenizer", f"{model}-test_results.csv.gz"),
        ]
    )

    metrics = finetune_lm.load_metrics(output_dir)
    tests = finetune_lm.load_metrics(output_dir / f"{model}-test_results.csv.gz")
    for frame in (metrics, tests):
        assert set(frame["model_name"]) == {model}
        assert set(frame["task"]) == {task}
        assert frame["surprisal"].notna().all()
        assert (frame["surprisal"] >= 0).all()
        assert ("sequence_type" in frame) == (task == "seq2seq")
    train_rows = metrics[metrics["dataset_type"] == "train"]
    assert train_rows.groupby(["epoch", "batch_number"]).ngroups == 6
    assert train_rows["example_num"].nunique() == 24
    assert metrics.groupby("epoch")["dataset_type"].nunique().tolist() == [2, 2]
    assert tests["example_num"].nunique() == 12
    assert {"sentence_type", "arg_order", "taught", "word_subj"} <= set(tests.columns)
    assert tests["taught"].dtype == pd.BooleanDtype()
    losses = train_rows.groupby("epoch")["loss"].mean()
    assert losses[1] < losses[0]
    if task == "mlm":
        assert len(tests) == 2 * 12
        assert (tests["word"].str.strip(".?") == tests["token"]).all()
    elif task == "seq2seq":
        labels = tests[tests["sequence_type"] == "label_sequence"]
        sentence = labels[labels["example_num"] == 0]
        assert sentence["word"].dropna().drop_duplicates().tolist() == [
            "<extra_id_0>", "teacher", "<extra_id_1>", "juice", "<extra_id_2>",
        ]  # fmt: skip
    else:
        sentence = tests[tests["example_num"] == 0]
        words = sentence["word"].drop_duplicates().tolist()
        assert words == ["The", "teacher", "has", "always", "flomped", "the", "juice."]

    saved = getattr(transformers, AUTO[task]).from_pretrained(output_dir / "model")
    assert saved.config.model_type
    assert transformers.AutoTokenizer.from_pretrained(output_dir / "tokenizer")
    assert (output_dir / "loss_curves.pdf").read_bytes().startswith(b"%PDF")
    assert json.loads((output_dir / "run.json").read_text())["state"] == "finished"
    assert " at 0x" not in (output_dir / "config.txt").read_text()
    assert yaml.safe_load((output_dir / "config.yaml").read_text())["seed"] == 3

    # In another process: this one, where sets, for instance, have another order.
    monkeypatch.chdir(tmp_path)
    assert main(["--config", str(output_dir / "config.yaml"), "--output_dir", "again"]) == 0
    for name in ("metrics.csv.gz", f"{model}-test_results.csv.gz"):
        assert (tmp_path / "again" / name).read_bytes() == (output_dir / name).read_bytes()


def test_only_testing(tmp_path):
    argv = ["--model_name_or_path", "tiny-lm", "--test_file", DATA / "flomped_test.txt.gz"]
    done = run_command(*argv, "--max_test_samples", 5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output_dir = tmp_path / "outputs" / "test_only" / "tiny-lm"
    assert sorted(path.name for path in output_dir.iterdir()) == [
        "config.txt", "config.yaml", "run.json", "tiny-lm-test_results.csv.gz",
    ]  # fmt: skip
    other = run_command(*argv, "--max_test_samples", 6, cwd=tmp_path)
    assert other.returncode == 2
    assert "made with another max_test_samples. Give an --output_dir." in other.stderr
    assert "Traceback" not in other.stderr


def test_losses_and_functions_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class HalfLoss:\n"
        "    def __init__(self, model, tokenizer, share=0.5):\n"
        "        self.share = share\n"
        "    def __call__(self, outputs, labels):\n"
        "        return outputs.loss * self.share\n"
        "def last_token_only(inputs, tokenizer, n=1):\n"
        "    labels = inputs['input_ids'].clone()\n"
        "    last = inputs['attention_mask'].sum(dim=1, keepdim=True) - n\n"
        "    places = __import__('torch').arange(labels.shape[1])\n"
        "    labels[places < last] = -100\n"
        "    return {**inputs, 'labels': labels}\n"
    )
    done = run_command(
        *("--model_name_or_path", "tiny-lm", "--epochs", 1, "--output_dir", "out"),
        *("--train_file", DATA / "flomped_active.txt.gz", "--max_train_samples", 4),
        *("--validation_file", DATA / "flomped_passive.txt.gz", "--max_validation_samples", 4),
        *("--loss_classes.train", "loss_classes.OutputsDefaultLoss", "mine.HalfLoss"),
        *("--loss_classes_kwargs.train.HalfLoss.share", "0.25"),
        *("--data_preprocessing_fn.validation", "mine.last_token_only"),
        *("--data_preprocessing_fn_strategy.validation", "per_batch"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    metrics = finetune_lm.load_metrics(tmp_path / "out")
    train = metrics[metrics["dataset_type"] == "train"]
    ratio = train["HalfLoss"] / train["OutputsDefaultLoss"]
    assert ratio.tolist() == pytest.approx([0.25] * len(train))
    validation = metrics[metrics["dataset_type"] == "validation"]
    assert validation["HalfLoss"].isna().all()
    assert validation.groupby("example_num").size().tolist() == [1] * 4
    assert validation["word"].str.endswith(".").all()


@pytest.mark.parametrize(
    "code", ["import finetune_lm", "from finetune_lm.cli import main; main(['--help'])"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    heavy = ("torch", "transformers", "optuna", "datasets", "pandas")
    shown = f"import sys; print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}"], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_masking_anew_for_each_batch(tmp_path, monkeypatch):
    """BERT-style fine-tuning."""
    settings = []
    for part in ("train", "validation"):
        settings += [
            *(f"--data_preprocessing_fn.{part}", "data_preprocessing.mask_random_tokens"),
            *(f"--data_preprocessing_fn_strategy.{part}", "per_batch"),
            *(f"--data_preprocessing_fn_kwargs.{part}.mask_prop", 0.3),
        ]
    argv = [
        *("--model_name_or_path", "tiny-mlm", "--epochs", 3, "--seed", 4),
        *("--train_file", DATA / "flomped_active.txt.gz", "--max_train_samples", 16),
        *("--validation_file", DATA / "flomped_passive.txt.gz", "--max_validation_samples", 8),
        *("--per_device_train_batch_size", 8, *settings),
    ]
    done = run_command(*argv, "--output_dir", "one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path)
    assert main([*map(str, argv), "--output_dir", "two"]) == 0
    one, two = ((tmp_path / name / "metrics.csv.gz").read_bytes() for name in ("one", "two"))
    assert one == two
    rows = finetune_lm.load_metrics(tmp_path / "one")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "one" / "tokenizer")
    train = rows[rows["dataset_type"] == "train"]
    for (_, text), example in train.groupby(["epoch", "original_text"]):
        n = len(tokenizer(text)["input_ids"]) - 2
        assert len(example) % max(round(0.3 * n), 1) == 0
    masked = train.groupby(["epoch", "example_num"])["word_num"].apply(tuple).unstack(0)
    assert (masked[0] != masked[1]).any()  # drawn anew
    assert train["input_text"].str.contains("[MASK]", regex=False).any()
    assert (train["input_label"] == train["original_text"]).all()
    assert {"teacher", "juice."} & set(train["word"])


def test_span_denoising(tmp_path):
    """T5-style fine-tuning."""
    settings = []
    for part in ("train", "validation"):
        settings += [
            *(f"--data_preprocessing_fn.{part}", "data_preprocessing.mask_random_spans"),
            *(f"--data_preprocessing_fn_kwargs.{part}.mean_noise_span_length", 2),
            *(f"--data_preprocessing_fn_kwargs.{part}.mask_prop", 0.4),
        ]
    done = run_command(
        *("--model_name_or_path", "tiny-seq2seq", "--epochs", 2, "--seed", 4),
        *("--train_file", DATA / "flomped_active.txt.gz", "--max_train_samples", 16),
        *("--validation_file", DATA / "flomped_passive.txt.gz", "--max_validation_samples", 8),
        *("--train_optimizer_kwargs.lr", "1e-3", "--output_dir", "out", *settings),
        *("--data_preprocessing_fn_strategy.train", "per_batch"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = finetune_lm.load_metrics(tmp_path / "out")
    labels = rows[rows["sequence_type"] == "label_sequence"]
    groups = labels.groupby(["dataset_type", "epoch", "example_num"])
    for _, example in groups:
        tokens = example["token"].tolist()
        sentinels = [token for token in tokens if token.startswith("<extra_id_")]
        assert sentinels == [f"<extra_id_{i}>" for i in range(len(sentinels))]
        assert tokens[0] == "<extra_id_0>"
        assert tokens[-1] == sentinels[-1]
        input_text = example["input_text"].iloc[0]
        assert all(sentinel in input_text for sentinel in sentinels[:-1])
        assert sentinels[-1] not in input_text
        assert example["input_label"].iloc[0].startswith("<extra_id_0>")
        assert not example["original_text"].str.contains("extra_id").any()
    assert groups.ngroups == 2 * (16 + 8)


def test_pseudo_log_likelihoods(tmp_path):
    done = run_command(
        *("--model_name_or_path", "tiny-mlm", "--test_file", DATA / "flomped_test.txt.gz"),
        *("--data_preprocessing_fn.test", "data_preprocessing.expand_with_masks"),
        *("--data_preprocessing_fn_strategy.test", "per_batch", "--max_test_samples", 6),
        *("--data_preprocessing_fn_kwargs.test.within_word_l2r", "True"),
        *("--per_device_test_batch_size", 4, "--output_dir", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rows = finetune_lm.load_metrics(tmp_path / "out" / "tiny-mlm-test_results.csv.gz")
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUILTIN / "tiny-mlm")
    assert rows.groupby("batch_number").size().max() == 4
    for _, example in rows.groupby("example_num"):
        text = example["original_text"].iloc[0]
        assert example["token_id"].tolist() == tokenizer(text)["input_ids"][1:-1]
        assert example["word"].drop_duplicates().tolist() == list(dict.fromkeys(text.split()))
        n_masks = example["input_text"].str.count(r"\[MASK\]").tolist()
        pieces = (~example["token"].str.startswith("##")).cumsum()
        later = pieces.groupby(pieces).cumcount(ascending=False) + 1
        assert n_masks == later.tolist()
    assert rows["example_num"].nunique() == 6


def test_preview_shows_and_writes_nothing(tmp_path):
    done = run_command(
        *("--model_name_or_path", "tiny-mlm", "--preview", 2),
        *("--test_file", DATA / "flomped_test.txt.gz", DATA / "fillers.txt.gz"),
        *("--data_preprocessing_fn.test", "data_preprocessing.mask_words"),
        *("--data_preprocessing_fn_kwargs.test.words_to_mask", "juice", "teacher"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(mask_words, once)") == 2
    assert "line 2" in done.stdout
    assert "line 3" not in done.stdout
    lines = done.stdout.splitlines()
    assert [line for line in lines if "[MASK]" in line]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "function", "message"),
    [
        (
            "tiny-lm",
            "mask_random_tokens",
            "mask_random_tokens is for masked language models (mlm) but 'tiny-lm' is a causal",
        ),
        (
            "tiny-mlm",
            "mask_random_spans",
            "is for sequence-to-sequence models (seq2seq) but 'tiny-mlm' is a masked",
        ),
    ],
)
def test_functions_for_other_kinds_of_model(tmp_path, model, function, message):
    done = run_command(
        *("--model_name_or_path", model, "--test_file", DATA / "flomped_test.txt.gz"),
        *("--data_preprocessing_fn.test", f"data_preprocessing.{function}"),
        # Nothing else is looked for before that is said.
        *("--tokenizer_name", "no/such-tokenizer"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_preprocessing_page(tmp_path):
    page = (DATA.parent.parent / "docs" / "preprocessing.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```(python|text|sh)\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    (tmp_path / "my_masking.py").write_text(blocks["python"], encoding="utf-8")
    (tmp_path / "nouns.txt").write_text(blocks["text"], encoding="utf-8")
    (tmp_path / "data").symlink_to(DATA.parent)
    words = shlex.split(blocks["sh"].replace("\\\n", " "))
    assert words.pop(0) == "finetune-lm"
    done = run_command(*words, "--max_test_samples", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [table] = tmp_path.glob("outputs/test_only/*/tiny-mlm-test_results.csv.gz")
    rows = finetune_lm.load_metrics(table)
    assert set(rows["token"]) <= set(blocks["text"].split())
    assert rows["token"].nunique() > 2
    assert rows["example_num"].is_unique
    texts = pd.Series(rows["original_text"])
    with_nouns = [
        line
        for line in gzip.decompress((DATA / "flomped_test.txt.gz").read_bytes())
        .decode()
        .split("\n")
        if set(re.findall(r"\w+", line)) & set(blocks["text"].split())
    ]
    assert len(texts) > 10
    assert texts.tolist() == with_nouns[: len(texts)]
    assert (rows["input_text"].str.count(r"\[MASK\]") == 1).all()
