"""A job by what is there for it: transformers' Trainer, and minicons for what tokens cost.

https://github.com/kanishkamisra/minicons is no dependency of this project.
"""

from __future__ import annotations

import importlib
import random
from typing import Any

import pandas as pd
import torch
import transformers

import workload
from careful_loop import N_DRAWN, SCALE, _ids, _padded, kl_term


def trainer_and_minicons(directory: str, texts: dict[str, Any], job: Any) -> None:
    """Train a model and measure all tokens, as `whole_job` has it."""
    random.seed(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    tables: list[pd.DataFrame] = []

    class Measuring(transformers.TrainerCallback):  # type: ignore[misc]
        """Measures the sentences at the end of each epoch."""

        def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
            tables.append(_measured(model, tokenizer, [*texts["train"], *texts["validation"]]))

    kind: Any = transformers.Trainer
    if job.with_kl:
        kind = _with_kl(directory, _ids(tokenizer, texts["kl"]))
    out = workload.scratch_directory()
    made = kind(
        model,
        workload.quiet_training(
            out / "trainer",
            per_device_eval_batch_size=workload.BATCH_SIZE,
            num_train_epochs=job.epochs,
            learning_rate=2e-6,
            eval_strategy="epoch",
            prediction_loss_only=True,
        ),
        transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
        *(
            [{"input_ids": ids} for ids in _ids(tokenizer, texts[k])]
            for k in ("train", "validation")
        ),
        callbacks=[Measuring()],
    )
    made.remove_callback(transformers.PrinterCallback)
    if job.epochs:
        made.train()
        pd.concat(tables).to_csv(out / "trainer_metrics.csv.gz", index=False)
    for number, lines in enumerate(texts["tests"]):
        table = _measured(model, tokenizer, lines)
        table.to_csv(out / f"trainer_test_{number}.csv.gz", index=False)


def _with_kl(directory: str, kl_ids: list[list[int]]) -> Any:
    """A Trainer whose loss has the KL term."""
    baseline = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()

    class WithKL(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            if not model.training:
                return loss
            drawn = _padded(random.sample(kl_ids, N_DRAWN))
            return loss + SCALE * kl_term(model, baseline, drawn)

    return WithKL


def _measured(model: Any, tokenizer: Any, lines: list[str]) -> pd.DataFrame:
    """The surprisal of each token by minicons, as its documentation has it."""
    was_training = model.training
    scorer = importlib.import_module("minicons.scorer").IncrementalLMScorer(
        model.eval(), "cpu", tokenizer=tokenizer
    )
    size = workload.BATCH_SIZE
    found = []
    for begin in range(0, len(lines), size):
        part = lines[begin : begin + size]
        with torch.no_grad():
            found += scorer.token_score(part, surprisal=True, base_two=True)
    model.train(was_training)
    rows = [(i, token, cost) for i, each in enumerate(found) for token, cost in each]
    return pd.DataFrame(rows, columns=["example", "token", "surprisal"])
