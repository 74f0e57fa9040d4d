"""Keyword arguments that transformers would swallow without doing anything with them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError

ACCESS = ("cache_dir", "local_files_only", "proxies", "revision", "subfolder", "token")
"""Where and how files are looked for."""

_WHERE = {*ACCESS, "code_revision", "force_download", "gguf_file", "trust_remote_code"}
"""What every ``from_pretrained`` takes."""

_OF_TOKENIZERS = {
    *("add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "backend"),
    *("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"),
    *("chat_control_tokens", "chat_template", "clean_up_tokenization_spaces", "config"),
    *("fix_mistral_regex", "from_slow", "legacy", "max_len", "merges", "merges_file"),
    *("mistral_format", "model_input_names", "model_max_length", "padding_side", "post_processor"),
    *("response_template", "sp_model_kwargs", "special_tokens_pattern", "split_special_tokens"),
    *("token_type_ids_include_special_tokens", "token_type_ids_pattern", "tokenizer_file"),
    *("tokenizer_object", "tokenizer_padding", "tokenizer_truncation", "tokenizer_type"),
    *("truncation_side", "unk_id", "use_fast", "verbose", "vocab", "vocab_file"),
}
"""What tokenizers of any class take without naming it in a signature."""

_OF_MODELS = {
    *("adapter_kwargs", "adapter_name", "attn_implementation", "config", "device_map", "dtype"),
    *("experts_implementation", "generation_config", "ignore_mismatched_sizes", "key_mapping"),
    *("max_memory", "offload_buffers", "offload_folder", "quantization_config", "state_dict"),
    *("tp_plan", "tp_size", "use_kernels", "use_safetensors", "variant", "weights_only"),
}
"""What models are loaded with; only for the nearest name. Others are told by transformers."""


def check_config_kwargs(name: str, config: Any, unused: Mapping[str, Any], given: Any) -> None:
    """See that a config has all that was to be changed in it.

    Args:
        name: The model, for the message.
        config: Its config.
        unused: What is left over of the keyword arguments.
        given: Those of the user.

    Raises:
        UserError: Naming those that it does not have.
    """
    unknown = [key for key in given if key in unused and key not in _WHERE]
    what = f"not in the configuration of {name!r} (of type {config.model_type!r})"
    _refuse("config_kwargs", unknown, {*config.to_dict(), *_WHERE}, what)


def check_tokenizer_kwargs(
    name: str, tokenizer: Any, given: Mapping[str, Any], saved: Iterable[str]
) -> None:
    """See that a tokenizer takes all that it was given.

    Args:
        name: Where it is from, for the message.
        tokenizer: The tokenizer.
        given: The user's keyword arguments.
        saved: The names in its own configuration file.

    Raises:
        UserError: Naming those that it does not take.
    """
    cls = type(tokenizer)
    known = _WHERE | _OF_TOKENIZERS | set(tokenizer.SPECIAL_TOKENS_ATTRIBUTES) | set(saved)
    for each in cls.__mro__:
        if "__init__" in vars(each):
            known |= inspect.signature(vars(each)["__init__"]).parameters.keys()
    known -= {"self", "args", "kwargs"}
    unknown = [
        key
        for key in given
        if key not in known
        # What can only be read cannot be set by it either.
        and (not hasattr(tokenizer, key) or isinstance(getattr(cls, key, None), property))
    ]
    _refuse(
        "tokenizer_kwargs", unknown, known, f"not an argument of the {cls.__name__} of {name!r}"
    )


def check_tokenizer_effects(
    name: str,
    tokenizer: Any,
    given: Mapping[str, Any],
    saved: Mapping[str, Any],
    build: Callable[[dict[str, Any]], Any],
) -> None:
    """See that all that a tokenizer was given makes another one of it, or is its default.

    Classes take keyword arguments of one another without a word, and some are of no account beside
    what the files say. So the tokenizer is built once more without each that cannot be seen in it.

    Args:
        name: Where it is from, for the message.
        tokenizer: The tokenizer, built with all of them.
        given: The user's keyword arguments.
        saved: Its own configuration file.
        build: Makes the tokenizer with these keyword arguments.

    Raises:
        UserError: Naming those that change nothing.
    """
    doubtful = [
        key
        for key, value in given.items()
        if key not in _WHERE and not (key in _READ and _same(getattr(tokenizer, key, None), value))
    ]
    if not doubtful:
        return
    idle = []
    # Once, and first of all: those written in Python keep what they have read.
    does = _what_it_does(tokenizer)
    for key in doubtful:
        try:
            without = build({other: given[other] for other in given if other != key})
        except UserError:  # it cannot be without it
            continue
        is_default = any(_same(given[key], default) for default in _defaults(key, without, saved))
        if not is_default and _what_it_does(without) == does:
            idle.append(key)
    known = {*type(tokenizer).SPECIAL_TOKENS_ATTRIBUTES, *_READ, *saved} - set(idle)
    what = f"without effect on the {type(tokenizer).__name__} of {name!r}"
    _refuse("tokenizer_kwargs", idle, known, what)


_READ = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    *("chat_control_tokens", "chat_template", "clean_up_tokenization_spaces"),
    *("extra_special_tokens", "model_input_names", "model_max_length", "padding_side"),
    *("response_template", "split_special_tokens", "truncation_side", "verbose"),
)
"""What every tokenizer has and goes by."""

_PROBE = "The naïve man's  café , 12 .  책을\u00a0x <s>a</s> b<mask> [MASK] don't <|endoftext|> É"
"""Text that tokenizers differ about."""


def _what_it_does(tokenizer: Any) -> list[str]:
    """What tells two tokenizers apart in use."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = backend.to_str()
    else:
        passive = ("init_kwargs", "init_inputs", "name_or_path")
        attributes = {k: v for k, v in vars(tokenizer).items() if k not in passive}
        state = re.sub(r" at 0x[0-9a-f]+", "", repr(attributes))
    ids = tokenizer(_PROBE, verbose=False)["input_ids"]
    return [
        str(type(tokenizer)),
        state,
        *(str(getattr(tokenizer, key, None)) for key in _READ),
        str(ids),
        str(tokenizer.decode(ids)),
    ]


def _defaults(key: str, tokenizer: Any, saved: Mapping[str, Any]) -> Iterator[Any]:
    """What an argument is where it is not given."""
    if key in saved:
        yield saved[key]
    if key in tokenizer.init_kwargs:
        yield tokenizer.init_kwargs[key]
    if hasattr(tokenizer, key):
        yield getattr(tokenizer, key)
    for each in type(tokenizer).__mro__:
        if "__init__" in vars(each):
            parameters = inspect.signature(vars(each)["__init__"]).parameters
            if key in parameters:
                yield parameters[key].default


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one; a token may be text or more than that."""
    return str(one) == str(other)


def check_model_kwarg(name: str, error: TypeError, config: Any, given: Mapping[str, Any]) -> None:
    """Tell what a model was given that it does not take, if that is what is wrong.

    Args:
        name: The model, for the message.
        error: What transformers says.
        config: The model's config.
        given: The user's keyword arguments.

    Raises:
        UserError: Naming what it does not take.
    """
    unknown = [key for key in given if f"unexpected keyword argument {key!r}" in str(error)]
    for key in unknown:
        if hasattr(config, key):
            raise UserError(
                f"model_kwargs.{key} is part of the configuration of {name!r}. "
                f"Give it as --config_kwargs.{key}."
            ) from error
    what = f"not an argument for loading {name!r}"
    _refuse("model_kwargs", unknown, _OF_MODELS | _WHERE, what)


def _refuse(argument: str, unknown: list[str], known: Iterable[str], what: str) -> None:
    if unknown:
        raise UserError(
            *(
                f"{argument}.{key} is {what}.{did_you_mean(key, known, f'{argument}.')}"
                for key in unknown
            )
        )
