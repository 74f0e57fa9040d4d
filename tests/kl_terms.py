"""Models, sentences and terms for tests of the KL term, and what it is by brute force."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from families import family
from finetune_lm import ModelArguments
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.models.loading import load_model
from helpers import save_without_dropout, write_lines

SENTENCES = [
    "The man has always broken the glass.",
    "The women drank.",
    "A naïve café-owner  said so?",
    "The story was told again and again.",
    "She opened the box and they drank a glass of cold water.",
    "The children don't see the old teacher.",
]

OUTPUTS = SimpleNamespace(loss=None, logits=None)


@pytest.fixture(scope="session")
def directories(tmp_path_factory):
    """Models without dropout."""
    return {
        name: save_without_dropout(family(name), tmp_path_factory.mktemp(name))
        for name in ("gpt2", "llama", "bert", "t5", "bart")
    }


@pytest.fixture
def sentences(tmp_path):
    return write_lines(tmp_path / "fillers.txt.gz", SENTENCES)


def load(directory, moved=True, **kwargs):
    """A model as a run loads it, with other weights than its baseline."""
    loaded = load_model(ModelArguments(directory, **kwargs))
    if moved:
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in loaded.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return loaded


def make(loaded, dataset, **kwargs):
    torch.manual_seed(3)
    return KLBaselineLoss(loaded.model, loaded.tokenizer, dataset=dataset, **kwargs)


def brute_force(directory, loaded, examples, n_shared=None):
    """KL(baseline || model), example by example in float64, of the positions that are given.

    Args:
        examples: For each example the inputs and the (logit position, ...) that count.
    """
    before = load(directory, moved=False).model.double()
    now = loaded.model
    means = []
    for inputs, positions in examples:
        with torch.no_grad():
            p = before(**inputs).logits[0, positions]
            q = now(**inputs).logits[0, positions].double()
        p, q = p[:, :n_shared].log_softmax(-1), q[:, :n_shared].log_softmax(-1)
        means.append(sum(float(a.exp() @ (a - b)) for a, b in zip(p, q, strict=True)) / len(p))
    return means


def lm_examples(tokenizer, texts, start=True):
    """All tokens of a text are predicted, the first one by the start token."""
    examples = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        if start and ids[0] != tokenizer.bos_token_id:
            ids = [tokenizer.bos_token_id, *ids]
        examples.append(({"input_ids": torch.tensor([ids])}, list(range(len(ids) - 1))))
    return examples


def value(loss):
    with torch.no_grad():
        return float(loss(OUTPUTS, None))


def add_tokens(model, tokenizer, words):
    tokenizer.add_tokens(words)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
