"""Testing a model with long texts that share nothing, by the fast way and by the plain one."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import transformers

import workload
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.examples import Examples
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from measuring import Row, smallest

N_TEXTS = {250: 96, 500: 96, 1000: 24}
"""Texts of each number of words."""
SHORT, N_SHORT = 12, 960
MORE_FOR_A_TOKEN = 1.3
LONGEST = 2048
# The plain way's logits of a larger batch would take many gigabytes.
_BATCH_SIZE = 4
_N_TIMES = 2


def run(quick: bool = False) -> list[Row]:
    """The plain way's time for long texts, and what a token of them costs."""
    workload.one_thread()
    layers, width = workload.SHAPES["small"]
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=width // 64,
        n_positions=LONGEST,
        vocab_size=workload.VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.loss_type = "ForCausalLM"
    data = {n_words: _texts(n_words, n) for n_words, n in ((SHORT, N_SHORT), *N_TEXTS.items())}
    rows, a_token = [], {}
    for n_words in [250] if quick else N_TEXTS:
        ours, plain = smallest(
            *(_test(model, data[n_words], fast=fast) for fast in (True, False)), n_times=_N_TIMES
        )
        what = f"testing {N_TEXTS[n_words]} texts of {n_words} words, small"
        rows.append(Row.at_most(what, "the plain way", ours / plain, 1.0))
    for n_words in (SHORT, 250 if quick else 500):
        [seconds] = smallest(_test(model, data[n_words], fast=True), n_times=_N_TIMES)
        a_token[n_words] = seconds / int(data[n_words].input_ids.lengths.sum())
    (short, cost), (long, cost_in_long) = a_token.items()
    what = f"a token in texts of {long} words, small"
    rows.append(
        Row.at_most(what, f"in texts of {short} words", cost_in_long / cost, MORE_FOR_A_TOKEN)
    )
    return rows


def _texts(n_words: int, n: int) -> Dataset:
    generator = random.Random(n_words)
    words = sorted({word for text in workload.mixed(300) for word in text.split()})
    texts = [" ".join(generator.choices(words, k=n_words)) for _ in range(n)]
    return Dataset(
        Examples("data", "data.txt", texts, None, [{} for _ in texts]),
        TextEncoder(workload.built_in_tokenizer(), LONGEST),
        TASKS["lm"],
    )


def _test(model: torch.nn.Module, data: Dataset, *, fast: bool) -> Callable[[], None]:
    """What each token of all texts costs."""
    forward = Forward(Scorer(model, data.task, fast=fast), data, _BATCH_SIZE, needs=Needs(False))
    cpu = torch.device("cpu")

    def test() -> None:
        forward.forget()
        with torch.no_grad():
            for batch in data.batches(_BATCH_SIZE):
                labels = batch.inputs["labels"]
                rows, positions = data.task.predictions(labels)
                targets = labels[rows, positions + data.task.label_offset]
                forward(batch, cpu, alone=False).score(rows, positions, targets)

    return test
