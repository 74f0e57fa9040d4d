"""A model that is split among processes (FSDP2): what is not among the tests of `test_ranks`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from crashing import difference
from finetune_lm import ModelArguments
from finetune_lm.cli import main
from finetune_lm.models.loading import load_model
from launched import launch, run_launched
from setups import DATA
from studies import wait_for

KWARGS = "model_pre_train_step_callbacks_kwargs.PartiallyFrozenModelCallback.frozen_params"
FROZEN = [
    "--model_pre_train_step_callbacks",
    *("model_modifiers.PartiallyFrozenModelCallback", "waiting.WaitForSignal"),
    *(f"--{KWARGS}", "transformer.wte.weight[1:1600]", "transformer.h.0.*"),
    *("--train_optimizer_kwargs.weight_decay", "0.1", "--gradient_checkpointing"),
    # Other ways and states than those of AdamW.
    *("--train_optimizer_groups.biases.params", "*h.1.*.bias"),
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


def test_it_is_resumed_to_the_byte_and_frozen_to_the_bit(tmp_path):
    found = {"PYTHONPATH": str(Path(__file__).parent)}
    whole, parts = (
        arguments(*FROZEN, "--fsdp", "--output_dir", name) for name in ("whole", "parts")
    )
    ranks = run_launched(*whole, cwd=tmp_path, environment=found)
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    waits = tmp_path / "waits" / "1"  # for the second rank alone
    waits.mkdir(parents=True)
    waiting = {**found, "WAIT_AT": f"{waits.parent}/$RANK:1.1"}
    ranks = launch(*parts, cwd=tmp_path, environment=waiting)
    wait_for(waits / "1.1", ranks[1])
    ranks[1].kill()
    assert [each.wait() for each in ranks] == [1, -9]
    assert "is gone. It was killed" in ranks[0].communicate()[1]
    ranks = run_launched("--resume", "parts", cwd=tmp_path, environment=found)
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    assert difference(tmp_path / "whole", tmp_path / "parts") == []

    before = load_model(ModelArguments("tiny-lm")).model.state_dict()
    after = load_file(tmp_path / "whole" / "model" / "model.safetensors")
    frozen = {name for name in after if name.startswith("transformer.h.0.")}
    assert len(frozen) > 5
    for name, weight in after.items():
        if name == "transformer.wte.weight":
            assert torch.equal(weight[1:1600], before[name][1:1600])
            assert not torch.equal(weight, before[name])
        else:
            assert torch.equal(weight, before[name]) == (name in frozen), name


def test_what_does_not_go_with_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments("--fsdp", "--compile", "--output_dir", "out")) == 2
    assert "fsdp cannot be given with compile" in capsys.readouterr().err
    assert main(arguments("--fsdp", "--output_dir", "out")) == 0
    assert "fsdp does nothing here, since there is only one process" in capsys.readouterr().err
