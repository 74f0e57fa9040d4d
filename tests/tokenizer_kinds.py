"""Tokenizers of every kind that users have: those of the families, the built-in ones, and variants.

Variants are classes of transformers and settings that treat the space before a word differently.
"""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import transformers
from tokenizers import Regex, normalizers, pre_tokenizers

from families import TOKENIZERS, bert_tokenizer, gpt2_tokenizer, llama_tokenizer, t5_tokenizer
from finetune_lm.models.pretrained import model_path

# How Llama 3 and Qwen cut texts: a mark may be of the same piece as the word behind it.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    """What transformers' classes for single families are made from."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocab = model["vocab"]
    found = {"vocab": vocab if isinstance(vocab, dict) else [tuple(entry) for entry in vocab]}
    if "merges" in model:
        found["merges"] = [tuple(merge) for merge in model["merges"]]
    return found


def _albert() -> Any:
    pieces = [(piece.lower(), value) for piece, value in _vocabulary(t5_tokenizer())["vocab"][3:]]
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    best = dict(reversed(pieces))
    vocab = [*((token, 0.0) for token in special), *best.items()]
    return transformers.AlbertTokenizer(vocab=vocab)


def _changed(tokenizer: Any, **parts: Any) -> Any:
    changed = copy.deepcopy(tokenizer)
    for name, part in parts.items():
        setattr(changed.backend_tokenizer, name, part)
    return changed


def _llama3() -> Any:
    cut = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _changed(gpt2_tokenizer(), pre_tokenizer=pre_tokenizers.Sequence([cut, as_bytes]))


def _metaspace_by_normalizer(*first: Any) -> Any:
    """As Llama 2 files had it (with a space put before the text), and as Gemma's have."""
    normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    return _changed(llama_tokenizer(), normalizer=normalizer, pre_tokenizer=None)


def _cased_bert() -> Any:
    return transformers.BertTokenizer(**_vocabulary(bert_tokenizer()), do_lower_case=False)


def _builtin(name: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(model_path(name))


VARIANTS = {
    **{name: functools.partial(_builtin, name) for name in ("tiny-lm", "tiny-mlm", "tiny-seq2seq")},
    "gpt2-class": lambda: transformers.GPT2Tokenizer(**_vocabulary(gpt2_tokenizer())),
    "gpt2-prefix-space": lambda: transformers.GPT2Tokenizer(
        **_vocabulary(gpt2_tokenizer()), add_prefix_space=True
    ),
    "roberta-prefix-space": lambda: transformers.RobertaTokenizer(
        **_vocabulary(TOKENIZERS["roberta"]()), add_prefix_space=True
    ),
    "roberta-class": lambda: transformers.RobertaTokenizer(**_vocabulary(TOKENIZERS["roberta"]())),
    "qwen-class": lambda: transformers.Qwen2Tokenizer(**_vocabulary(gpt2_tokenizer())),
    "neox-class": lambda: transformers.GPTNeoXTokenizer(
        **_vocabulary(gpt2_tokenizer()), pad_token="<|endoftext|>"
    ),
    "llama-class": lambda: transformers.LlamaTokenizer(**_vocabulary(llama_tokenizer())),
    "llama-legacy": lambda: _metaspace_by_normalizer(normalizers.Prepend("▁")),
    "gemma": _metaspace_by_normalizer,
    "llama3": _llama3,
    "t5-class": lambda: transformers.T5Tokenizer(**_vocabulary(t5_tokenizer()), extra_ids=20),
    "albert-class": _albert,
    "bert-cased": _cased_bert,
}


@functools.cache
def tokenizer_of_kind(name: str) -> Any:
    """A tokenizer, which must not be changed."""
    return {**TOKENIZERS, **VARIANTS}[name]()


KINDS = [*TOKENIZERS, *VARIANTS]
