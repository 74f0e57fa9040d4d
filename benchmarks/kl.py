"""The KL term with the baseline's predictions in its cache, against learning the same tokens."""

from __future__ import annotations

import gzip

import torch
import transformers

import workload
from finetune_lm import ModelArguments
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.models.loading import load_model
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from measuring import Row, smallest

TARGETS = {"small": 1.35, "gpt2": 1.15}
N_DRAWN = 20


def run(quick: bool = False) -> list[Row]:
    """The KL term from the cache, against cross-entropy on the same real tokens."""
    return [_of_shape(shape) for shape in (["small"] if quick else ["small", "gpt2"])]


def _of_shape(shape: str) -> Row:
    workload.one_thread()
    transformers.utils.logging.disable_progress_bar()
    # A baseline is loaded as the model was named, so there has to be such a directory.
    directory = workload.scratch_directory() / shape
    workload.causal_model(shape).save_pretrained(directory)
    workload.built_in_tokenizer().save_pretrained(directory)
    loaded = load_model(ModelArguments(str(directory)))
    model = loaded.model.train()
    texts = workload.mixed()[: workload.N_KL : workload.N_KL // N_DRAWN][:N_DRAWN]
    path = directory / "kl.txt.gz"
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))
    # All of them are drawn each time, so that both sides see the same tokens.
    loss = KLBaselineLoss(model, loaded.tokenizer, dataset=str(path), n_examples_per_batch=N_DRAWN)
    data = workload.dataset(texts, loaded.tokenizer)
    forward = Forward(Scorer(model, data.task, fast=True), data, N_DRAWN, needs=Needs(False))
    [batch] = data.batches(N_DRAWN)
    device, no_labels = torch.device("cpu"), torch.empty(0)

    def divergence() -> None:
        loss(outputs=None, labels=no_labels).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def cross_entropy() -> None:
        forward(batch, device).for_losses.loss.backward()
        model.zero_grad()

    ours, other = smallest(divergence, cross_entropy)
    what = f"KL term from the cache, {shape}"
    against = "cross-entropy of the same real tokens"
    return Row.at_most(what, against, ours / other, TARGETS[shape])
