"""What an argument is declared to affect, and what follows from that: over all arguments."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

import finetune_lm
from crashing import difference
from finetune_lm import DataTrainingArguments, ModelArguments, OptimizationArguments, UserError
from finetune_lm.arguments import config_dict
from finetune_lm.arguments.declared import (
    MAY_BE_RAISED,
    MAY_CHANGE,
    RESULT,
    VALIDATION_LOSS,
    Affects,
    option,
)
from finetune_lm.arguments.references import resolve_name
from finetune_lm.data.files import read_files
from finetune_lm.measures import Rank
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.runs.run_identity import identity_of, names_of_differences, paths_of
from finetune_lm.scoring.forward import Forward
from finetune_lm.study.search_space import search_space
from finetune_lm.study.study_record import study_identity
from helpers import write_lines
from setups import arguments, setup

CLASSES = (ModelArguments, DataTrainingArguments, OptimizationArguments)
FIELDS = {field.name: (cls, field) for cls in CLASSES for field in dataclasses.fields(cls)}

BASE = {"model_name_or_path": "tiny-lm", "epochs": 5, "patience": 2, "seed": 1}
FILES = {
    "train_file": "train.txt.gz",
    "validation_file": "check.txt.gz",
    "test_file": ["test.txt.gz"],
}
OTHER = {
    "model_name_or_path": "tiny-mlm",
    "config_name": "tiny-mlm",
    "cache_dir": "elsewhere",
    "drop_cache": True,
    "tokenizer_name": "tiny-mlm",
    "use_fast_tokenizer": False,
    "model_revision": "other",
    "token": "hf_other",
    "trust_remote_code": True,
    "use_gpu": True,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "compile": True,
    "fsdp": True,
    "compile_kwargs": {"mode": "default"},
    "model_task": "mlm",
    "train_mode": "mlm",
    "select_mode": "mlm",
    "model_modifier_fns": ["model_modifiers.add_new_tokens"],
    "model_modifier_fn_kwargs": {"add_new_tokens": {"added_tokens": ["dax"]}},
    "model_pre_train_step_callbacks": ["stateful.FreezeAndDamp"],
    "model_pre_train_step_callbacks_kwargs": {"FreezeAndDamp": {"by": 0.5}},
    "model_callbacks": {"pre_train_step": ["stateful.FreezeAndDamp"]},
    "model_callbacks_kwargs": {"pre_train_step": {"FreezeAndDamp": {"by": 0.5}}},
    "model_kwargs": {"attn_implementation": "eager"},
    "tokenizer_kwargs": {"add_prefix_space": True},
    "config_kwargs": {"attn_pdrop": 0.3},
    "train_file": "other/train.txt.gz",
    "validation_file": "other/check.txt.gz",
    "test_file": ["test.txt.gz", "train.txt.gz"],
    "probe_file": ["test.txt.gz"],
    "probe_every": 2,
    "probe_every_steps": 5,
    "overwrite_cache": True,
    "preprocessing_num_workers": 2,
    "max_length": 7,
    "pad_to_max_length": True,
    "max_train_samples": 1,
    "per_device_train_batch_size": 1,
    "max_validation_samples": 1,
    "per_device_validation_batch_size": 1,
    "max_test_samples": 1,
    "per_device_test_batch_size": 1,
    "max_probe_samples": 1,
    "per_device_probe_batch_size": 1,
    "ignore_pad_for_token_loss": False,
    "data_preprocessing_fn": {"train": "data_preprocessing.mask_random_tokens"},
    "data_preprocessing_fn_strategy": {"train": "per_batch"},
    "data_preprocessing_fn_kwargs": {"train": {"mask_prop": 0.5}},
    "epochs": 4,
    "min_epochs": 1,
    "patience": 1,
    "delta": 0.5,
    "select_by": "pair_accuracy",
    "train_optimizer": "torch.optim.SGD",
    "train_optimizer_kwargs": {"weight_decay": 0.5},
    "train_optimizer_groups": {"biases": {"params": ["*.bias"], "weight_decay": 0.5}},
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 1.0,
    "lr_scheduler": "linear",
    "lr_scheduler_kwargs": {"num_warmup_steps": 3},
    "loss_classes": {"train": ["stateful.NoisyLoss"]},
    "loss_reduction_fns": {"train": "torch.mean"},
    "loss_classes_kwargs": {"train": {"OutputsDefaultLoss": {"x": 1}}},
    "measures": {"test": [Rank]},
    "measures_kwargs": {"Candidates": {"words": ["tea"]}},
    "on_nan": "skip",
    "checkpoint_every": 3,
    "output_dir": "elsewhere",
    "test_output_file_prefix": "mine",
    "seed": 2,
    "save_tmp_test_files": True,
    "word_tables": True,
    "log_with": ["tensorboard"],
    "log_with_kwargs": {"tensorboard": {"flush_secs": 3}},
    "shuffle_train": False,
    "eval_before_training": True,
    "save_best_model_state_to_disk": False,
    "fast": False,
    "append_eos": True,
    "bos_policy": "none",
    "pair_space": "leading",
    "pair_region": "verb",
    "detokenize": True,
    "contrasts": {"x": "a - b"},
    "do_optimize": True,
    "study_kwargs": {"sampler_kwargs": {"seed": 3}},
    "optimize_kwargs": {"n_trials": 7},
    "params": {"delta": {"values": [0.0, 1.0]}},
    "max_trials": 9,
    "keep_best_trial": True,
}
"""Another value than the default, or than that of `BASE`, for each argument."""

OF_TESTS = {
    "data_preprocessing_fn": "data_preprocessing.mask_random_tokens",
    "data_preprocessing_fn_strategy": "per_batch",
    "data_preprocessing_fn_kwargs": {"mask_prop": 0.5},
}
"""Another value for the keys ``test`` and ``probe`` of arguments of which they affect less."""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train", "check", "test"):
        write_lines(Path(f"{name}.txt.gz"), [f"The {name} drank.", "She left."])
        Path("other").mkdir(exist_ok=True)
        write_lines(Path("other", f"{name}.txt.gz"), [f"Another {name}.", "She left."])


def given(**changed):
    """All arguments, with dotted names looked up as on the command line."""

    def resolved(value):
        if isinstance(value, dict):
            return {key: resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolved(item) for item in value]
        dotted = ("stateful.", "torch.", "data_preprocessing.", "model_modifiers.")
        is_name = isinstance(value, str) and value.startswith(dotted)
        return resolve_name(value) if is_name else value

    values = {**BASE, **FILES, **resolved(changed)}
    return tuple(cls(**{k: v for k, v in values.items() if FIELDS[k][0] is cls}) for cls in CLASSES)


def of_run(**changed):
    all_args = given(**changed)
    used = read_files(all_args[1])
    return identity_of(all_args, used), paths_of(used), config_dict(*all_args)


def of_study(**changed):
    all_args = given(**changed)
    parameters = search_space(all_args[2].params, all_args[1])
    return study_identity(*all_args, parameters, read_files(all_args[1]))


def resumed(**changed):
    before, _, config = of_run()
    EarlierRun(Path("o"), config, {}, before).check(*of_run(**changed)[:2])


def test_every_argument_says_what_it_affects():
    assert all(isinstance(field.metadata["affects"], Affects) for _, field in FIELDS.values())
    assert FIELDS.keys() == OTHER.keys()
    with_keys = {name for name, (_, field) in FIELDS.items() if "affects_keys" in field.metadata}
    assert with_keys == OF_TESTS.keys()
    with pytest.raises(TypeError, match="affects"):
        option(3, "An argument that does not say so.")


@pytest.mark.parametrize("name", FIELDS)
def test_a_run_is_resumed_with_another_value_if_that_is_no_result(name):
    _, field = FIELDS[name]
    is_free = field.metadata.get("on_resume") == MAY_CHANGE
    if field.metadata["affects"] in RESULT and not is_free:
        with pytest.raises(UserError, match=rf"\b{name}\b|other/\w+\.txt\.gz must say what it did"):
            resumed(**{name: OTHER[name]})
    else:
        resumed(**{name: OTHER[name]})


@pytest.mark.parametrize("name", FIELDS)
def test_what_may_be_raised_is_a_number_that_was_not_reached(name):
    may = FIELDS[name][1].metadata.get("on_resume") == MAY_BE_RAISED
    assert may == (name in ("epochs", "patience"))
    if may:
        resumed(**{name: BASE[name] + 1})


@pytest.mark.parametrize("name", FIELDS)
def test_trials_are_of_one_study_if_their_values_can_be_compared(name):
    differing = names_of_differences(of_study(), of_study(**{name: OTHER[name]}))
    if FIELDS[name][1].metadata["affects"] in VALIDATION_LOSS and name != "seed":
        assert name in differing
    else:
        # The study has the seed beside its identity, as it may be drawn.
        assert differing == []


@pytest.mark.parametrize("name", OF_TESTS)
def test_what_is_done_to_tests_and_probes_makes_no_other_study(name):
    for key in ("test", "probe"):
        changed = {name: {key: OF_TESTS[name]}}
        assert names_of_differences(of_study(), of_study(**changed)) == []
        with pytest.raises(UserError, match=rf"\b{name}\.{key}"):
            resumed(**changed)


def test_what_affects_no_result_leaves_the_tables_as_they_are(monkeypatch):
    """All such arguments at once, of a run that was stopped in the middle."""
    free = {
        name: OTHER[name]
        for name, (_, field) in FIELDS.items()
        if field.metadata["affects"] not in RESULT or field.metadata.get("on_resume") == MAY_CHANGE
    }
    # Where it goes on is said by `resume`; there may be no such token.
    del free["output_dir"], free["token"]
    monkeypatch.setenv("HF_HOME", "elsewhere")
    short = {"epochs": 2, "eval_before_training": False, "max_test_samples": 6}
    model, data = setup("lm", **short)
    whole = finetune_lm.run(*arguments(model, {**data, "output_dir": "whole"}))
    original, calls = Forward.__call__, []

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    with pytest.raises(Interrupted):
        finetune_lm.run(*arguments(model, {**data, "output_dir": "parts"}))
    of = {cls: {k: v for k, v in free.items() if FIELDS[k][0] is cls} for cls in CLASSES}
    finetune_lm.resume(
        "parts",
        *arguments(
            {**model, **of[ModelArguments]},
            {**data, **of[DataTrainingArguments], "output_dir": "parts"},
        ),
        OptimizationArguments(**of[OptimizationArguments]),
    )
    # Only that it has another name, as was asked for.
    tests = (whole.test_results_path, Path("parts/mine-test_results.csv.gz"))
    assert tests[0].read_bytes() == tests[1].read_bytes()
    for name in ("test_results", "test_words"):
        Path(f"parts/mine-{name}.csv.gz").rename(f"parts/tiny-lm-{name}.csv.gz")
    different = difference(whole.output_dir, Path("parts"))
    beside = ("model", "tokenizer", "config.", "tensorboard")
    assert [f for f in different if not f.startswith(beside)] == []


def test_the_identity_is_on_record(tmp_path):
    model, data = setup("lm", epochs=1, test_file=None, output_dir="o")
    finetune_lm.run(*arguments(model, data))
    identity = json.loads(Path("o/run.json").read_text())["identity"]
    assert identity["train_optimizer_kwargs"] == {"lr": "0.001", "weight_decay": "0.01"} or (
        identity["train_optimizer_kwargs"] == {"lr": 0.001, "weight_decay": 0.01}
    )
    assert [name for name, _ in identity["train_file"]] == ["flomped_active"]
    assert "stateful" in identity["code"]
    assert len(identity["model"]["weights"]) == 64
    assert not {"output_dir", "cache_dir", "token"} & identity.keys()


def test_a_text_is_no_file_because_there_is_one_of_that_name():
    """A file called ``train`` has nothing to do with a split of that name."""
    texts = {"split_name": "train", "mode": "min", "words": ["min", "train"], "by": "The man."}
    changed = {"loss_classes_kwargs": {"train": {"OutputsDefaultLoss": texts}}}
    before, *_ = of_run(**changed)
    for name in ("train", "min", "The man."):
        Path(name).write_text("anything")
    assert of_run(**changed)[0] == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("word_list", "words.txt"),
        ("word_list", "./words"),
        ("word_list", "lists/words"),
        ("vocab_file", "words"),
        ("path", "words"),
        ("word_files", ["words", "others"]),
        ("fileName", "words"),
    ],
)
def test_a_path_counts_by_what_the_file_says(key, value):
    changed = {"loss_classes_kwargs": {"train": {"OutputsDefaultLoss": {key: value}}}}
    path = Path(value if isinstance(value, str) else value[0])
    path.parent.mkdir(exist_ok=True)
    path.write_text("glass")
    before, *_ = of_run(**changed)
    path.write_text("box")
    assert names_of_differences(before, of_run(**changed)[0]) == ["loss_classes_kwargs"]
    path.write_text("glass")
    assert of_run(**changed)[0] == before
