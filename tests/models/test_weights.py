"""Model directories that are broken: told in words, and never filled up with random numbers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import CONFIGS, family, task_of
from finetune_lm import ModelArguments, UserError
from finetune_lm.models.loading import load_model
from helpers import save_family

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return {
        name: Path(save_family(family(name), tmp_path_factory.mktemp(name)))
        for name in ("gpt2", "bert")
    }


@pytest.fixture
def directory(saved, tmp_path):
    return Path(shutil.copytree(saved["gpt2"], tmp_path / "model"))


def change_config(directory, **values):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **values}))


def change_weights(directory, change):
    weights = load_file(directory / WEIGHTS)
    change(weights)
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class RunsAProgram:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def as_pickle(directory, content=None):
    weights = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    torch.save(content or weights, directory / "pytorch_model.bin")


def without_a_shard(directory):
    family("gpt2").model.save_pretrained(directory, max_shard_size="20KB")
    (directory / WEIGHTS).unlink()
    sorted(directory.glob("model-*.safetensors"))[0].unlink()


def spoil(key, value):
    def change(weights):
        weights[key].view(-1)[-1] = value

    return lambda directory: change_weights(directory, change)


# What is done to the directory of a GPT-2, and what is said behind the model's name.
BROKEN = {
    **{
        f"{value} in {key}": (
            spoil(key, value),
            f"must have finite weights, but {key} has infinite or NaN values. "
            f"Save the model again, or use an earlier checkpoint.",
        )
        for key in ("transformer.wte.weight", "transformer.h.1.ln_1.bias")
        for value in (float("nan"), float("inf"), -float("inf"))
    },
    "no weights": (
        lambda d: (d / WEIGHTS).unlink(),
        "cannot be loaded as model: Error no file named model.safetensors",
    ),
    "weights cut off": (
        lambda d: cut(d / WEIGHTS),
        "cannot be loaded as model: SafetensorError: Error while deserializing header: incomplete "
        "metadata, file not fully covered",
    ),
    "empty weights": (
        lambda d: (d / WEIGHTS).write_bytes(b""),
        "cannot be loaded as model: SafetensorError: Error while deserializing header: header too "
        "small",
    ),
    "a shard is missing": (without_a_shard, "cannot be loaded as model: "),
    "a pickle that runs a program": (
        lambda d: as_pickle(d, {"x": RunsAProgram(d / "ran")}),
        "cannot be loaded as model: its weights are a pickle that holds more than numbers and "
        "could run any program. Save them as safetensors.",
    ),
    "a pickle that is none": (
        lambda d: ((d / WEIGHTS).unlink(), (d / "pytorch_model.bin").write_bytes(b"junk")),
        "cannot be loaded as model: struct.error: unpack requires a buffer of 4 bytes",
    ),
    "a configuration that is no JSON": (
        lambda d: (d / "config.json").write_text("{nope"),
        "cannot be loaded as configuration: It looks like the config file at",
    ),
    "a configuration that is a list": (
        lambda d: (d / "config.json").write_text("[1]"),
        "cannot be loaded as configuration: Unrecognized model",
    ),
    "no configuration": (
        lambda d: (d / "config.json").unlink(),
        "cannot be loaded as configuration: Unrecognized model",
    ),
    "a configuration with a text for a number": (
        lambda d: change_config(d, n_layer="x"),
        "cannot be loaded as configuration: StrictDataclassFieldValidationError: Validation error "
        "for field 'n_layer': TypeError: Field 'n_layer' expected int, got str (value: 'x')",
    ),
    "an unknown type": (
        lambda d: change_config(d, model_type="gpt99"),
        "cannot be loaded as configuration: The checkpoint you are trying to load has model type "
        "`gpt99`",
    ),
    "a tokenizer that is no JSON": (
        lambda d: (d / "tokenizer.json").write_text("{nope"),
        "cannot be loaded as tokenizer: ",
    ),
    "an empty tokenizer": (
        lambda d: (d / "tokenizer.json").write_text("{}"),
        "cannot be loaded as tokenizer: ",
    ),
    "another width": (
        lambda d: change_config(d, n_embd=32),
        "has weights that do not fit its configuration: transformer.h.0.attn.c_attn.bias is of "
        "shape (48,) but must be of (96,) (and 27 more).",
    ),
    "a layer too few": (
        lambda d: change_config(d, n_layer=3),
        "lacks weights that a causal language model of type 'gpt2' needs: "
        "transformer.h.2.attn.c_attn.bias (and 11 more). They would be random. Name a model that "
        "has them.",
    ),
    "one weight missing": (
        lambda d: change_weights(d, lambda weights: weights.pop("transformer.ln_f.bias")),
        "lacks weights that a causal language model of type 'gpt2' needs: transformer.ln_f.bias. "
        "They would be random. Name a model that has them.",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_told_in_a_line(directory, case):
    breaking, message = BROKEN[case]
    breaking(directory)
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(str(directory)))
    [problem] = caught.value.problems
    assert str(directory) in problem
    assert message in problem
    assert "\n" not in problem
    assert not (directory / "ran").exists()


@pytest.mark.parametrize("name", [name for name in CONFIGS if task_of(name)[0] == "mlm"])
def test_a_masked_model_without_its_head_is_refused(tmp_path, name):
    fam = family(name)
    fam.tokenizer.save_pretrained(tmp_path)
    fam.model.base_model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks weights that a masked language model of type"):
        load_model(ModelArguments(str(tmp_path), model_task="mlm"))


@pytest.mark.parametrize("name", list(CONFIGS))
def test_what_is_saved_of_each_family_loads_as_it_was(tmp_path, capsys, name):
    """Tied weights, which are saved once, are not missing; nor are buffers."""
    fam = family(name)
    loaded = load_model(ModelArguments(save_family(fam, tmp_path)))
    expected = dict(fam.model.named_parameters())
    found = dict(loaded.model.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert "warning" not in capsys.readouterr().err


def test_a_pickle_of_numbers_loads(directory):
    as_pickle(directory)
    loaded = load_model(ModelArguments(str(directory)))
    expected = family("gpt2").model.state_dict()
    assert torch.equal(
        loaded.model.state_dict()["transformer.wte.weight"], expected["transformer.wte.weight"]
    )


def test_a_pickle_runs_nothing_even_if_asked(directory):
    as_pickle(directory, {"x": RunsAProgram(directory / "ran")})
    with pytest.raises(UserError, match="a pickle that holds more than numbers"):
        load_model(ModelArguments(str(directory), model_kwargs={"weights_only": False}))
    assert not (directory / "ran").exists()


def test_layers_beyond_those_of_the_configuration_are_warned_of(directory, capfd):
    change_config(directory, n_layer=1)
    load_model(ModelArguments(str(directory)))
    error = capfd.readouterr().err
    assert (
        f"warning: {directory} has weights of more layers than its configuration says; they are "
        f"not used: transformer.h.1.attn.c_attn.weight (and 10 more).\n"
    ) in error
    assert "LOAD REPORT" not in error  # transformers' own


def test_the_head_of_another_task_is_no_matter(saved, tmp_path, capsys):
    directory = Path(shutil.copytree(saved["bert"], tmp_path / "model"))
    change_weights(
        directory,
        lambda weights: weights.update({"cls.seq_relationship.weight": torch.zeros(2, 16)}),
    )
    load_model(ModelArguments(str(directory)))
    assert "warning" not in capsys.readouterr().err


def test_another_shape_can_be_asked_for(directory, capsys):
    change_config(directory, n_positions=80)
    with pytest.raises(UserError, match=r"transformer\.wpe\.weight is of shape \(64, 16\)"):
        load_model(ModelArguments(str(directory)))
    load_model(ModelArguments(str(directory), model_kwargs={"ignore_mismatched_sizes": True}))
    assert (
        f"warning: {directory} has random weights where those of its checkpoint have another "
        "shape: transformer.wpe.weight.\n"
    ) in capsys.readouterr().err
