"""Masking 2,000 sentences, against tokenizing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import workload
from finetune_lm import data_preprocessing
from finetune_lm.data.preprocessed_sequences import CHUNK
from finetune_lm.models.vocabulary import padding_id
from measuring import Row, smallest

N_SENTENCES = 2_000


def run(quick: bool = False) -> list[Row]:
    """Masking 2,000 sentences, against tokenizing them."""
    del quick
    workload.one_thread()
    return [
        _row("mask_random_tokens", "tiny-mlm"),
        _row("mask_random_spans", "tiny-seq2seq"),
    ]


def _row(name: str, model: str) -> Row:
    tokenizer = workload.built_in_tokenizer(model)
    texts = workload.mixed()[:N_SENTENCES]
    # A data set hands its examples over in chunks of this size.
    chunks = [_inputs(tokenizer, texts[i : i + CHUNK]) for i in range(0, N_SENTENCES, CHUNK)]
    function: Callable[..., Any] = getattr(data_preprocessing, name)

    def mask() -> None:
        for inputs in chunks:
            function(inputs, tokenizer)

    masking, tokenizing = smallest(mask, lambda: tokenizer(texts))
    what = f"{name} on {N_SENTENCES:,} sentences"
    return Row.at_most(what, "tokenizing them", masking / tokenizing, 1.0)


def _inputs(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(row) for row in tokenizer(texts)["input_ids"]]
    padded = torch.nn.utils.rnn.pad_sequence(ids, True, padding_id(tokenizer))
    lengths = torch.tensor([len(row) for row in ids])
    return {
        "input_ids": padded,
        "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long(),
    }
