"""What masking a batch costs beside the step that it is for.

A batch of 32 x 128 tokens is masked as under ``per_batch``, and a model of 12 layers, 768 wide,
goes forward and backward over it. Ratios of times of one process, the fastest of several rounds
each.

    python benchmarks/masking.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from finetune_lm import data_preprocessing

BATCH, LENGTH, VOCABULARY = 32, 128, 30_522
TARGET = 0.02
BUILTIN = Path(data_preprocessing.__file__).parents[1] / "models" / "builtin"
ROUNDS = 20


def run() -> list[tuple[str, str]]:
    """Each measurement as what it is of and what came out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = _step_seconds(device)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    lines = [(f"forward and backward, 12 layers, 768 wide, {where}", f"{step * 1e3:.0f} ms")]
    for name, model, kwargs in (
        ("mask_random_tokens", "tiny-mlm", {}),
        ("mask_random_spans", "tiny-seq2seq", {}),
        ("mask_truerandom_spans", "tiny-seq2seq", {}),
        ("mask_words", "tiny-mlm", {"words_to_mask": ["the", "man", "water", "juice"]}),
        ("mask_words", "tiny-seq2seq", {"words_to_mask": ["the", "man", "water", "juice"]}),
    ):
        tokenizer = transformers.AutoTokenizer.from_pretrained(BUILTIN / model)
        ids = torch.randint(200, 1_300, (BATCH, LENGTH))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        function = getattr(data_preprocessing, name)
        seconds = _fastest(lambda f=function, i=inputs, t=tokenizer, k=kwargs: f(i, t, **k))
        share = seconds / step
        verdict = "" if share < TARGET else f", over the {TARGET:.0%} that it may cost"
        lines.append(
            (f"{name} for {model}", f"{seconds * 1e3:.2f} ms, {share:.3%} of the step{verdict}")
        )
    return lines


def _step_seconds(device: str) -> float:
    config = transformers.BertConfig(vocab_size=VOCABULARY)
    assert (config.num_hidden_layers, config.hidden_size) == (12, 768)
    model = transformers.BertForMaskedLM(config).to(device).train()
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH), device=device)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return _fastest(step, rounds=ROUNDS if device == "cuda" else 1)


def _fastest(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    call()  # what is found out once is not what a step costs
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """Print the table."""
    lines = run()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
