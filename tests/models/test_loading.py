from __future__ import annotations

import json

import pytest
import torch
import transformers

from families import family, gpt2_tokenizer
from finetune_lm import ModelArguments, UserError
from finetune_lm.models.loading import (
    LoadedModel,
    length_limit,
    load_model,
    readable_count,
)
from finetune_lm.models.tasks import TASKS
from helpers import save_family


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (7, "7"),
        (43_000, "43K"),
        (99_949, "100K"),
        (420_000, "0.4M"),
        (6_000_000, "6.0M"),
        (134_515_008, "135M"),
        (124_439_808, "124M"),
        (999_900_000, "1.0B"),
        (2_775_208_960, "2.8B"),
        (70_000_000_000, "70B"),
    ],
)
def test_counts_are_readable_at_any_size(n, text):
    assert readable_count(n) == text


def test_tied_weights_count_once():
    fam = family("gpt2")
    loaded = LoadedModel("x", TASKS["lm"], fam.model, fam.tokenizer)
    parameters = {id(p): p.numel() for p in fam.model.parameters()}
    assert loaded.n_params == readable_count(sum(parameters.values()))


@pytest.mark.parametrize(
    ("name", "limit"), [("gpt2", 64), ("llama", 64), ("bert", 64), ("t5", None)]
)
def test_the_models_own_limit(name, limit):
    fam = family(name)
    assert length_limit(fam.model, fam.tokenizer) == limit


def test_robertas_positions_begin_behind_its_padding():
    fam = family("roberta")
    limit = length_limit(fam.model, fam.tokenizer)
    assert limit == 64
    with torch.no_grad():
        fam.model(input_ids=torch.full((1, limit), 5))
        with pytest.raises((IndexError, RuntimeError)):
            fam.model(input_ids=torch.full((1, limit + 1), 5))


def test_the_tokenizers_limit_counts_too():
    fam = family("gpt2")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=gpt2_tokenizer().backend_tokenizer, model_max_length=20
    )
    assert length_limit(fam.model, tokenizer) == 20


def test_weights_are_float32_unless_asked_otherwise(tmp_path):
    fam = family("gpt2")
    directory = save_family(fam._replace(model=fam.model.bfloat16()), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_model(ModelArguments(directory)).model.dtype == torch.float32
    asked = load_model(ModelArguments(directory, model_kwargs={"dtype": "bfloat16"}))
    assert asked.model.dtype == torch.bfloat16


def test_kwargs_go_through(tmp_path):
    directory = save_family(family("gpt2"), tmp_path)
    loaded = load_model(
        ModelArguments(
            directory,
            config_kwargs={"resid_pdrop": 0.25},
            tokenizer_kwargs={"pad_token": "!"},
            model_kwargs={"attn_implementation": "eager"},
        )
    )
    assert loaded.model.config.resid_pdrop == 0.25
    assert loaded.tokenizer.pad_token == "!"
    assert loaded.model.config._attn_implementation == "eager"


def test_config_and_tokenizer_of_other_names(tmp_path):
    fam = family("gpt2")
    fam.model.save_pretrained(tmp_path / "model")
    fam.tokenizer.save_pretrained(tmp_path / "tokenizer")
    fam.model.config.resid_pdrop = 0.75
    fam.model.config.save_pretrained(tmp_path / "config")
    loaded = load_model(
        ModelArguments(
            str(tmp_path / "model"),
            tokenizer_name=str(tmp_path / "tokenizer"),
            config_name=str(tmp_path / "config"),
        )
    )
    assert loaded.tokenizer.get_vocab() == fam.tokenizer.get_vocab()
    assert loaded.model.config.resid_pdrop == 0.75


def test_a_tokenizer_with_tokens_that_the_model_lacks(tmp_path):
    fam = family("gpt2")
    fam.model.resize_token_embeddings(300)
    with pytest.raises(UserError, match="embeddings for ids below 300 and a token with id"):
        load_model(ModelArguments(save_family(fam, tmp_path)))


def test_a_kind_of_model_that_the_weights_are_not_of(tmp_path):
    directory = save_family(family("gpt2"), tmp_path)
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(directory, model_task="mlm"))
    assert "model_task must fit the model" in str(caught.value)
    assert "(of type 'gpt2') is not a masked language model" in str(caught.value)


def test_a_modifier_may_return_another_model(tmp_path):
    directory = save_family(family("gpt2"), tmp_path)
    other = family("gpt2").model

    def swap(model, tokenizer):
        return other

    assert load_model(ModelArguments(directory, model_modifier_fns=[swap])).model is other
