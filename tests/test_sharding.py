"""A model that is split among processes (FSDP2): what is not among the tests of `test_ranks`."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.modeling_layers import GradientCheckpointingLayer

from crashing import difference
from families import TEXTS, family
from finetune_lm import ModelArguments, UserError
from finetune_lm.cli import main
from finetune_lm.models.loading import load_model
from finetune_lm.models.sharding import layers, shard
from helpers import write_lines
from launched import ENVIRONMENT, launch, run_launched
from same_tables import assert_same_tables
from setups import DATA
from studies import wait_for
from two_modes_model import save_two_modes

KWARGS = "model_pre_train_step_callbacks_kwargs.PartiallyFrozenModelCallback.frozen_params"
FROZEN = [
    "--model_pre_train_step_callbacks",
    *("model_modifiers.PartiallyFrozenModelCallback", "waiting.WaitForSignal"),
    *(f"--{KWARGS}", "embedding.weight[1:100]", "layers.0.*"),
    *("--train_optimizer_kwargs.weight_decay", "0.1", "--gradient_checkpointing"),
    # Other ways and states than those of AdamW.
    *("--train_optimizer_groups.biases.params", "layers.1.*.bias"),
    *("--train_optimizer_groups.biases.optimizer", "torch.optim.SGD"),
    *("--train_optimizer_groups.biases.lr", "0.01"),
    *("--train_optimizer_groups.biases.momentum", "0.9"),
]


def arguments(*more):
    """A run whose last batches have nothing for one of two processes."""
    return [
        *("--model_name_or_path", "tiny-lm", "--seed", "1", "--epochs", "3"),
        *("--train_file", f"{DATA}/flomped_active.txt.gz", "--max_train_samples", "9"),
        *("--validation_file", f"{DATA}/flomped_passive.txt.gz", "--max_validation_samples", "5"),
        *("--per_device_train_batch_size", "2", "--per_device_validation_batch_size", "2"),
        *("--test_file", f"{DATA}/flomped_test.txt.gz", "--max_test_samples", "3"),
        *("--save_tmp_test_files", "--train_optimizer_kwargs.lr", "1e-3"),
        *("--checkpoint_every", "1", *more),
    ]


def in_two_modes(directory, n, *more):
    """A run of a model in both of its modes, in all that can differ between them, in batches of 4.

    n processes share these; for the last of an epoch there are too few examples.
    """
    kl = "loss_classes_kwargs.{}.KLBaselineLoss."
    words = ["--model_name_or_path", "model", "--model_task", "lm+mlm", "--trust_remote_code"]
    words += ["--seed", "1", "--epochs", "3", "--checkpoint_every", "1", "--eval_before_training"]
    words += ["--train_optimizer_kwargs.lr", "1e-3", "--train_optimizer_kwargs.eps", "1e-5"]
    words += ["--output_dir", directory, "--save_tmp_test_files", "--word_tables"]
    words += ["--measures", "measures.BaselineKL", "measures.Rank"]
    for part, file in {"train": "teach", "validation": "check", "test": "teach"}.items():
        words += [f"--{part}_file", f"{file}.txt.gz"]
        words += [f"--per_device_{part}_batch_size", str(4 // n)]
        words += [f"--data_preprocessing_fn.{part}", "data_preprocessing.mask_random_tokens"]
        words += [f"--data_preprocessing_fn_strategy.{part}", "per_batch"]
    for part in ("train", "validation"):
        losses = "loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"
        words += [f"--loss_classes.{part}", *losses, f"--{kl.format(part)}dataset", "teach.txt.gz"]
        words += [f"--{kl.format(part)}n_examples_per_batch", "3"]
        masks = "data_preprocessing.mask_random_tokens"
        words += [f"--{kl.format(part)}data_preprocessing_fn", masks]
    words += ["--model_callbacks.pre_train_batch", "model_modifiers.AlternateModes"]
    words += ["--model_callbacks.end_epoch", "stateful.SplitAlike", *FROZEN, *more]
    return words


def test_both_modes_are_split_as_one_resumed_to_the_byte_and_frozen_to_the_bit(
    tmp_path, monkeypatch
):
    save_two_modes(tmp_path / "model", n_layers=2)
    write_lines(tmp_path / "teach.txt.gz", [*TEXTS, *TEXTS[1:4]])
    write_lines(tmp_path / "check.txt.gz", TEXTS[1:])
    do = {"cwd": tmp_path, "environment": ENVIRONMENT}
    ranks = run_launched(*in_two_modes("whole", 2, "--fsdp"), **do)
    assert [each.returncode for each in ranks] == [0, 0], "".join(each.stderr for each in ranks)
    waits = tmp_path / "waits" / "1"  # for the second rank alone
    waits.mkdir(parents=True)
    waiting = {**ENVIRONMENT, "WAIT_AT": f"{waits.parent}/$RANK:1.1"}
    ranks = launch(*in_two_modes("parts", 2, "--fsdp"), cwd=tmp_path, environment=waiting)
    wait_for(waits / "1.1", ranks[1])
    ranks[1].kill()
    assert [each.wait() for each in ranks] == [1, -9]
    assert "is gone. It was killed" in ranks[0].communicate()[1]
    ranks = run_launched("--resume", "parts", **do)
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    assert difference(tmp_path / "whole", tmp_path / "parts") == []

    monkeypatch.chdir(tmp_path)
    assert main(in_two_modes("one", 1)) == 0
    tables = assert_same_tables(tmp_path / "one", tmp_path / "whole")
    assert {"metrics.csv.gz", "words.csv.gz", "model-test_results.csv.gz"} < set(tables)
    metrics = pd.read_csv(tmp_path / "one" / "metrics.csv.gz")
    assert (metrics.groupby("mode")["KLBaselineLoss"].max() > 1e-4).all()  # something was learned
    before = load_file(tmp_path / "model" / "model.safetensors")
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM):
        model = auto.from_pretrained(tmp_path / "whole" / "model", trust_remote_code=True)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        frozen = {name for name in after if name.startswith("layers.0.")}
        assert len(frozen) == 4
        for name, weight in after.items():
            if name == "embedding.weight":
                assert torch.equal(weight[1:100], before[name][1:100])
                assert not torch.equal(weight, before[name])
            else:
                assert torch.equal(weight, before[name]) == (name in frozen), name


def test_layers_are_split_one_by_one_whether_a_class_names_them_or_not():
    def layers_of(name):
        model = family(name).model
        found = {layer: model.get_submodule(layer) for layer in layers([model])}
        assert all(isinstance(each, GradientCheckpointingLayer) for each in found.values())
        return list(found)

    numbered = [f"layer.{number}" for number in (0, 1)]
    assert layers_of("gpt2") == ["transformer.h.0", "transformer.h.1"]
    assert layers_of("bert") == [f"bert.encoder.{layer}" for layer in numbered]
    assert layers_of("distilbert") == [f"distilbert.transformer.{layer}" for layer in numbered]
    assert layers_of("t5") == [
        f"{side}.block.{n}" for side in ("encoder", "decoder") for n in (0, 1)
    ]
    sides = [f"model.{side}.layers.{n}" for side in ("encoder", "decoder") for n in (0, 1)]
    assert layers_of("bart") == layers_of("pegasus") == sides


def test_what_does_not_go_with_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments("--fsdp", "--compile", "--output_dir", "out")) == 2
    assert "fsdp cannot be given with compile" in capsys.readouterr().err
    assert main(arguments("--fsdp", "--output_dir", "out")) == 0
    assert "fsdp does nothing here, since there is only one process" in capsys.readouterr().err
    model = load_model(ModelArguments("tiny-lm")).model
    model.lm_head.weight.register_hook(torch.sign)
    with pytest.raises(UserError, match=r"hooked to the gradient .* of transformer\.wte\.weight"):
        shard([model], torch.device("cpu"))
