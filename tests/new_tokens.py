"""What tests of new tokens share: models to change, and all that has a row for each token."""

from __future__ import annotations

import copy

import numpy as np
import torch

from families import family
from finetune_lm.arguments import ModelArguments
from finetune_lm.models.loading import load_model

BUILTIN = ["tiny-lm", "tiny-mlm", "tiny-seq2seq"]
TIED = ["gpt2", "bert", "roberta", "t5", "bart", "electra", "albert", "distilbert", "flan-t5"]
UNTIED = ["llama", "qwen", "pythia", "olmo", "flan-t5-untied"]


def model_and_tokenizer(name):
    """A model of a family, or a built-in one, that may be changed."""
    if name in BUILTIN:
        loaded = load_model(ModelArguments(name))
        return loaded.model, loaded.tokenizer
    if name == "flan-t5-untied":
        fam = family("flan-t5")
        torch.manual_seed(1)
        head = fam.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
        fam.model.config.tie_word_embeddings = False
        fam.model._tied_weights_keys = {}
        fam.model.all_tied_weights_keys = {}
    else:
        fam = family(name)
    model = copy.deepcopy(fam.model)
    with torch.no_grad():
        # Biases start as zeros, which would hide what becomes of them.
        for name_, table in [*model.named_parameters(), *model.named_buffers()]:
            if name_.endswith(("bias", "final_logits_bias")):
                table.normal_()
    return model, copy.deepcopy(fam.tokenizer)


def tables(model):
    """All that has a row for each token, found by its size and not by its name."""
    size = model.get_input_embeddings().weight.shape[0]
    found = {}
    for name, table in [*model.named_parameters(), *model.named_buffers()]:
        values = table.detach().numpy().astype(np.float64)
        if values.shape[0] == size:
            found[name] = values.reshape(size, -1).copy()
        elif values.shape == (1, size):
            found[name] = values.T.copy()
    return found


def entries(tokenizer, before):
    """The new ids, in order."""
    old = set(before.get_vocab().values())
    return sorted(set(tokenizer.get_vocab().values()) - old)


def is_bert(tokenizer):
    return type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"


def in_sentence(tokenizer, word):
    return tokenizer(f"a {word}", add_special_tokens=False)["input_ids"][1:]
