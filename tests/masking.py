"""What tests of masking share: inputs, and the original put together again."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hypothesis import strategies as st

import families
import finetune_lm
from finetune_lm.models.vocabulary import vocabulary_of

BUILTIN = Path(finetune_lm.__file__).parent / "models" / "builtin"
WORDS = ["the", "man", "mankind", "crined", "drank", "water", ".", ",", "(man)", "☃", "naïve", "a"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
BATCHES = st.lists(TEXTS, min_size=1, max_size=4)
SEEDS = st.integers(0, 2**20)


@functools.cache
def tokenizer_of(name: str) -> Any:
    if name.startswith("tiny"):
        return transformers.AutoTokenizer.from_pretrained(BUILTIN / name)
    return families.TOKENIZERS[name]()


def encode(tokenizer: Any, texts: Any) -> dict[str, torch.Tensor]:
    encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
    return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def real_ids(inputs: Any, row: int) -> list[int]:
    return inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()


def label_ids(outputs: Any, row: int) -> list[int]:
    labels = outputs["labels"][row]
    n = int((labels != -100).sum())
    assert (labels[n:] == -100).all()
    return labels[:n].tolist()


def reconstructed(outputs: Any, row: int, sentinels: list[int]) -> list[int]:
    """The tokens of the labels put back at their sentinels."""
    spans: dict[int, list[int]] = {}
    for token in label_ids(outputs, row):
        if token in sentinels:
            assert token not in spans
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    whole: list[int] = []
    for token in real_ids(outputs, row):
        whole += spans.pop(token) if token in sentinels else [token]
    assert list(spans.values()) == [[]]  # the final sentinel
    return whole


def check_spans(inputs: Any, outputs: Any, tokenizer: Any) -> None:
    """Everything that holds of all functions that make spans."""
    vocabulary = vocabulary_of(tokenizer)
    sentinels = vocabulary.sentinel_ids.tolist()
    for row in range(len(inputs["input_ids"])):
        assert reconstructed(outputs, row, sentinels) == real_ids(inputs, row)
        in_inputs = [i for i in real_ids(outputs, row) if i in sentinels]
        in_labels = [i for i in label_ids(outputs, row) if i in sentinels]
        assert in_inputs == sentinels[: len(in_inputs)]
        assert in_labels == sentinels[: len(in_inputs) + 1]
        assert label_ids(outputs, row)[-1] == in_labels[-1]
        assert not set(label_ids(outputs, row)) & (vocabulary.special_ids - set(sentinels))
        mask = outputs["attention_mask"][row]
        assert (mask.diff() <= 0).all()


def n_ordinary(inputs: Any, tokenizer: Any, row: int) -> int:
    ids = np.array(real_ids(inputs, row))
    return int((~vocabulary_of(tokenizer).is_special(ids)).sum())


def copied(inputs: Any) -> Any:
    return {key: tensor.clone() for key, tensor in inputs.items()}


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
