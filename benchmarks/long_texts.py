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
from measuring import Row, processor_time

N_WORDS = 10_000
LENGTHS = [250, 500, 1000]
"""How many words a text has. There are so many texts that all have `N_WORDS`."""
SHORT = 12
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
    lengths = [250] if quick else LENGTHS
    data = {n_words: _texts(n_words) for n_words in [SHORT, *lengths]}
    tests = [_test(model, data[SHORT], fast=True)]
    tests += [_test(model, data[n], fast=fast) for n in lengths for fast in (True, False)]
    seconds = iter(least(tests))
    rows, a_token = [], {SHORT: next(seconds) / _n_tokens(data[SHORT])}
    for n_words in lengths:
        ours, plain = next(seconds), next(seconds)
        what = f"testing {len(data[n_words])} texts of {n_words} words, small"
        rows.append(Row.at_most(what, "the plain way", ours / plain, 1.0))
        a_token[n_words] = ours / _n_tokens(data[n_words])
    long = 250 if quick else 500
    what, ratio = f"a token in texts of {long} words, small", a_token[long] / a_token[SHORT]
    rows.append(Row.at_most(what, f"in texts of {SHORT} words", ratio, MORE_FOR_A_TOKEN))
    return rows


def least(functions: list[Callable[[], None]]) -> list[float]:
    """The least processor time of each function, all of them taken in turn.

    What is found out once is part of it here, since it is done anew each time.
    """
    times = [[processor_time(f) for f in functions] for _ in range(_N_TIMES)]
    return [min(column) for column in zip(*times, strict=True)]


def _n_tokens(data: Dataset) -> int:
    return int(data.input_ids.lengths.sum())


def _texts(n_words: int) -> Dataset:
    generator = random.Random(n_words)
    words = sorted({word for text in workload.mixed(300) for word in text.split()})
    n = N_WORDS // n_words
    texts = [" ".join(generator.choices(words, k=n_words)) for _ in range(n)]
    return Dataset(
        Examples("data", "data.txt", texts, None, [{} for _ in texts]),
        TextEncoder(workload.built_in_tokenizer(), LONGEST),
        TASKS["lm"],
    )


def _test(model: torch.nn.Module, data: Dataset, *, fast: bool) -> Callable[[], None]:
    """What each token of all texts costs, with the comparison of both ways at the beginning."""
    cpu = torch.device("cpu")

    def test() -> None:
        scorer = Scorer(model, data.task, fast=fast)
        forward = Forward(scorer, data, _BATCH_SIZE, needs=Needs(False))
        with torch.no_grad():
            for batch in data.batches(_BATCH_SIZE):
                labels = batch.inputs["labels"]
                rows, positions = data.task.predictions(labels)
                targets = labels[rows, positions + data.task.label_offset]
                forward(batch, cpu, alone=False).score(rows, positions, targets)()

    return test
