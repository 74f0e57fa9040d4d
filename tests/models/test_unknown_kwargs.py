"""Misspelt keyword arguments for transformers, which would do nothing and not be told."""

from __future__ import annotations

import inspect
import re

import pytest
import transformers

from finetune_lm import ModelArguments, UserError
from finetune_lm.models.loading import identify, load_model
from finetune_lm.models.unknown_kwargs import check_tokenizer_effects, check_tokenizer_kwargs
from tokenizer_classes import BUILT, build, build_with
from tokenizer_kinds import KINDS, tokenizer_of_kind

ALL = [*((build, name) for name in BUILT), *((tokenizer_of_kind, name) for name in KINDS)]
MODELS = ["tiny-lm", "tiny-mlm", "tiny-seq2seq"]


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_tokenizers_of_all_classes(make, name):
    tokenizer = make(name)
    parameters = inspect.signature(type(tokenizer).__init__).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    own.pop("self", None)
    common = {"padding_side": "right", "model_max_length": 64, "pad_token": "x", "subfolder": ""}
    check_tokenizer_kwargs("model", tokenizer, {**own, **common}, [])
    for key in (*own, *common):
        with pytest.raises(
            UserError, match=rf"^tokenizer_kwargs\.{key}q is not an argument of the"
        ):
            check_tokenizer_kwargs("model", tokenizer, {f"{key}q": None}, [])
        check_tokenizer_kwargs("model", tokenizer, {f"{key}q": None}, [f"{key}q"])


def test_what_can_only_be_read():
    with pytest.raises(UserError, match=r"tokenizer_kwargs\.vocab_size is not an argument"):
        check_tokenizer_kwargs("model", tokenizer_of_kind("gpt2"), {"vocab_size": 3}, [])


@pytest.mark.parametrize("name", MODELS)
def test_all_that_a_config_has(name):
    """Each key with the value that it has, and with a letter too many."""
    config, _ = identify(ModelArguments(name))
    keys = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    for derived in ("transformers_version", "model_type"):
        keys.pop(derived, None)
    identify(ModelArguments(name, config_kwargs=keys))
    for key in [*keys, "local_files_only"]:
        with pytest.raises(UserError) as caught:
            identify(ModelArguments(name, config_kwargs={f"{key}q": 1}))
        assert f"config_kwargs.{key}q is not in the configuration of {name!r}" in str(caught.value)
        assert f"Did you mean config_kwargs.{key}?" in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (
            {"config_kwargs": {"vocab_sise": 3}, "tokenizer_kwargs": {}},
            "config_kwargs.vocab_sise is not in the configuration of",
        ),
        (
            {"tokenizer_kwargs": {"pad_tokn": "!"}},
            "Did you mean tokenizer_kwargs.pad_token?",
        ),
        ({"model_kwargs": {"dytpe": "float32"}}, "Did you mean model_kwargs.dtype?"),
        (
            {"model_kwargs": {"atn_implementation": "eager"}},
            "Did you mean model_kwargs.attn_implementation?",
        ),
        ({"model_kwargs": {"vocab_size": 3}}, "Give it as --config_kwargs.vocab_size."),
    ],
)
def test_told_before_weights_are_read(monkeypatch, name, kwargs, said):
    def load(*args, **kwargs):
        raise AssertionError("weights were read")

    monkeypatch.setattr(transformers.PreTrainedModel, "_load_pretrained_model", load)
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(name, **kwargs))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_right_is_taken(name):
    load_model(
        ModelArguments(
            name,
            config_kwargs={"local_files_only": True, "force_download": False, "subfolder": ""},
            tokenizer_kwargs={
                "padding_side": "right",
                "model_max_length": 1000,
                "local_files_only": True,
                "use_fast": True,
                "add_prefix_space": False,
                "extra_special_tokens": [],
                "clean_up_tokenization_spaces": False,
            },
            model_kwargs={
                "dtype": "float32",
                "attn_implementation": "eager",
                "low_cpu_mem_usage": True,
                "use_safetensors": True,
                "local_files_only": True,
                "subfolder": "",
                "weights_only": True,
                "ignore_mismatched_sizes": False,
            },
        )
    )


CHANGE_NOTHING = [
    ("tiny-lm", {"max_len": 5}, "Did you mean tokenizer_kwargs.model_max_length?"),
    ("tiny-lm", {"legacy": False}, ""),
    ("tiny-lm", {"legacy": True}, ""),
    ("tiny-lm", {"unk_id": 5}, ""),
    ("tiny-lm", {"do_lower_case": True}, ""),
    ("tiny-lm", {"errors": "strict"}, ""),
    ("tiny-lm", {"from_slow": True}, ""),
    ("tiny-lm", {"max_len": 5, "model_max_length": 64}, ""),
    ("tiny-mlm", {"add_prefix_space": True}, ""),
    ("tiny-mlm", {"add_bos_token": True}, ""),
    ("tiny-mlm", {"merges": []}, ""),
    ("tiny-seq2seq", {"extra_ids": 5}, ""),
    ("tiny-seq2seq", {"add_prefix_space": True}, ""),
    ("tiny-seq2seq", {"special_tokens_pattern": "none"}, ""),
]


@pytest.mark.parametrize(("name", "kwargs", "hint"), CHANGE_NOTHING)
def test_what_changes_nothing_in_this_tokenizer_is_told(name, kwargs, hint):
    key = next(iter(kwargs))
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(name, tokenizer_kwargs=kwargs))
    [problem] = caught.value.problems
    assert re.match(
        rf"tokenizer_kwargs\.{key} is (without effect on|not an argument of) the \w+ of", problem
    )
    assert hint in problem


CHANGE = [
    ("tiny-lm", {"add_prefix_space": True}),
    ("tiny-lm", {"add_bos_token": True}),
    ("tiny-lm", {"padding_side": "left"}),
    ("tiny-lm", {"truncation_side": "left"}),
    ("tiny-lm", {"model_max_length": 64}),
    ("tiny-lm", {"pad_token": "!"}),
    ("tiny-lm", {"model_input_names": ["input_ids"]}),
    ("tiny-lm", {"chat_template": "x"}),
    ("tiny-mlm", {"do_lower_case": False}),
    ("tiny-mlm", {"strip_accents": False}),
    ("tiny-mlm", {"split_special_tokens": True}),
    # Defaults:
    ("tiny-lm", {"errors": "replace"}),
    ("tiny-lm", {"add_bos_token": False}),
    ("tiny-lm", {"eos_token": "<|endoftext|>", "pad_token": None}),
    ("tiny-lm", {"backend": "tokenizers"}),
    ("tiny-mlm", {"do_lower_case": True, "add_prefix_space": False}),
    ("tiny-mlm", {"tokenize_chinese_chars": True}),
    ("tiny-seq2seq", {"extra_ids": 100}),
]


@pytest.mark.parametrize(("name", "kwargs"), CHANGE)
def test_what_changes_something_or_is_the_default_is_taken(name, kwargs):
    load_model(ModelArguments(name, tokenizer_kwargs=kwargs))


@pytest.mark.parametrize("name", BUILT)
def test_what_changes_something_in_any_class(name):
    """A padding side counts in every class; ``mistral_format`` in none."""

    def without(kwargs):
        assert not kwargs
        return build_with(name)

    left = build_with(name, padding_side="left")
    check_tokenizer_effects("model", left, {"padding_side": "left"}, {}, without)
    kept = build_with(name, mistral_format=True)
    with pytest.raises(UserError, match=r"tokenizer_kwargs\.mistral_format is without effect"):
        check_tokenizer_effects("model", kept, {"mistral_format": True}, {}, without)
