"""A job by the loop that a careful researcher writes.

No pass too many, no logits kept, tests sorted by length, and tables made of arrays.
"""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import torch
import transformers
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

import workload

N_DRAWN, SCALE = 20, 2.5


def careful_loop(directory: str, texts: dict[str, Any], job: Any) -> None:
    """Train a model and measure all tokens, as `whole_job` has it."""
    torch.manual_seed(1)
    random.seed(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    baseline = None
    if job.with_kl:
        baseline = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
        kl_ids = _ids(tokenizer, texts["kl"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6, weight_decay=0.0)
    train, validation = (_ids(tokenizer, texts[kind]) for kind in ("train", "validation"))
    size = workload.BATCH_SIZE
    best, best_state, tables = float("inf"), {}, []
    for epoch in range(job.epochs):
        model.train()
        for begin in range(0, len(train), size):
            batch = _padded(train[begin : begin + size])
            logits = model(**batch).logits
            targets = _targets(batch)
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())
            if baseline is not None:
                drawn = _padded(random.sample(kl_ids, N_DRAWN))
                loss = loss + SCALE * kl_term(model, baseline, drawn)
            with torch.no_grad():
                tables.append(_rows(logits, targets, epoch))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        total, n = 0.0, 0
        for begin in range(0, len(validation), size):
            table = _measured(model, validation[begin : begin + size], epoch)
            total, n = total + float(table["surprisal"].sum()), n + len(table)
            tables.append(table)
        if total / n < best:
            best = total / n
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
    out = workload.scratch_directory()
    if tables:
        pd.concat(tables).to_csv(out / "loop_metrics.csv.gz", index=False)
        model.load_state_dict(best_state)
    model.eval()
    for number, lines in enumerate(texts["tests"]):
        # What is about as long goes in together, so that there is next to no padding.
        ids = sorted(_ids(tokenizer, lines), key=len)
        batches = (ids[begin : begin + size] for begin in range(0, len(ids), size))
        table = pd.concat([_measured(model, batch, -1) for batch in batches])
        table.to_csv(out / f"loop_test_{number}.csv.gz", index=False)


def kl_term(model: Any, baseline: Any, batch: dict[str, Tensor]) -> Tensor:
    """KL(baseline || model), its mean over the tokens of each sentence and over sentences."""
    with torch.no_grad():
        expected = baseline(**batch).logits[:, :-1].log_softmax(-1)
    found = model(**batch).logits[:, :-1].log_softmax(-1)
    real = batch["attention_mask"][:, 1:]
    each = kl_div(found, expected, reduction="none", log_target=True).sum(-1) * real
    return (each.sum(1) / real.sum(1)).mean()


def _ids(tokenizer: Any, lines: list[str]) -> list[list[int]]:
    return [[0, *ids] for ids in tokenizer(lines)["input_ids"]]


def _padded(ids: list[list[int]]) -> dict[str, Tensor]:
    width = max(map(len, ids))
    mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in ids])
    padded = torch.tensor([each + [0] * (width - len(each)) for each in ids])
    return {"input_ids": padded, "attention_mask": mask}


def _targets(batch: dict[str, Tensor]) -> Tensor:
    return batch["input_ids"][:, 1:].masked_fill(batch["attention_mask"][:, 1:] == 0, -100)


def _measured(model: Any, ids: list[list[int]], epoch: int) -> pd.DataFrame:
    batch = _padded(ids)
    with torch.no_grad():
        return _rows(model(**batch).logits, _targets(batch), epoch)


def _rows(logits: Tensor, targets: Tensor, epoch: int) -> pd.DataFrame:
    """What each token costs, and which would have been likeliest at which cost, in bits."""
    real = targets != -100
    logits, tokens = logits[:, :-1][real].float(), targets[real]
    normalizer = logits.logsumexp(-1)
    best, best_id = logits.max(-1)
    own = logits.gather(1, tokens[:, None])[:, 0]
    bits = 1 / torch.log(torch.tensor(2.0))
    return pd.DataFrame(
        {
            "epoch": epoch,
            "token_id": tokens.numpy(),
            "surprisal": ((normalizer - own) * bits).numpy(),
            "predicted_token_id": best_id.numpy(),
            "predicted_token_surprisal": ((normalizer - best) * bits).numpy(),
        }
    )
