"""A small model that is causal and masked in one, with code of its own, as GPT-BERT comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from families import TEXTS, bert_tokenizer

# One stack of weights, two classes, whose layers differ in what they see. The masked one sees both
# sides and does not shift its labels; the causal one does. Positions are told by distance, so that
# padding is nothing.
CODE = """
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput


class TwoModesConfig(transformers.PretrainedConfig):
    model_type = "two_modes"

    def __init__(self, vocab_size=100, hidden_size=16, n_layers=1, **kwargs):
        self.vocab_size, self.hidden_size, self.n_layers = vocab_size, hidden_size, n_layers
        super().__init__(**kwargs)


class Layer(transformers.modeling_layers.GradientCheckpointingLayer):
    def __init__(self, width, looks_ahead):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.looks_ahead = looks_ahead

    def forward(self, states, bias, seen):
        q, k, v = self.qkv(states).chunk(3, dim=-1)
        seen = seen if self.looks_ahead else seen.tril()
        bias = bias[None].masked_fill(~seen, -1e9)
        return states + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))


class Masked(transformers.PreTrainedModel):
    config_class = TwoModesConfig
    base_model_prefix = "stack"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]
    looks_ahead = True

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        layers = [Layer(width, self.looks_ahead) for _ in range(config.n_layers)]
        self.layers = nn.ModuleList(layers)
        self.near = nn.Parameter(torch.zeros(129))
        self.classifier = nn.Linear(width, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def set_input_embeddings(self, value):
        self.embedding = value

    def get_output_embeddings(self):
        return self.classifier

    def set_output_embeddings(self, value):
        self.classifier = value

    def logits(self, input_ids, attention_mask):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self.embedding(input_ids)
        n = input_ids.shape[1]
        places = torch.arange(n, device=states.device)
        bias = self.near[(places[:, None] - places[None]).clamp(-64, 64) + 64]
        seen = attention_mask[:, None, :].bool().expand(-1, n, -1)
        for layer in self.layers:
            states = layer(states, bias, seen)
        return self.classifier(torch.tanh(states))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.logits(input_ids, attention_mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


class Causal(Masked):
    looks_ahead = False

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.logits(input_ids, attention_mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)
"""
AUTO_MAP = {
    "AutoConfig": "two_modes.TwoModesConfig",
    "AutoModelForCausalLM": "two_modes.Causal",
    "AutoModelForMaskedLM": "two_modes.Masked",
}


def save_two_modes(
    directory: Path, code: str = CODE, n_steps: int = 0, offset: int = 1, n_layers: int = 1
) -> Path:
    """Save such a model with random weights, or one that has learned to fill masks of `TEXTS`.

    Args:
        directory: Where.
        code: Its code.
        n_steps: After how many steps.
        offset: How many positions before a mask it has learned to predict it.
        n_layers: How many layers it has. Random weights are smaller where there are several.
    """
    directory.mkdir(exist_ok=True)
    (directory / "two_modes.py").write_text(code)
    tokenizer = bert_tokenizer()
    config = {"model_type": "two_modes", "vocab_size": len(tokenizer), "n_layers": n_layers}
    (directory / "config.json").write_text(json.dumps({**config, "auto_map": AUTO_MAP}))
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    auto = transformers.AutoModelForMaskedLM
    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=True)
    model = auto.from_config(config, trust_remote_code=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.5 if n_layers == 1 else 0.2)
    _learn_to_fill_masks(model, tokenizer, n_steps, offset)
    model.save_pretrained(directory)
    (directory / "two_modes.py").write_text(code)
    saved = json.loads((directory / "config.json").read_text())
    saved = {**saved, "auto_map": AUTO_MAP, "architectures": ["Causal", "Masked"]}
    (directory / "config.json").write_text(json.dumps(saved))
    return directory


def _learn_to_fill_masks(model: Any, tokenizer: Any, n_steps: int, offset: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    rows = []
    for text in TEXTS:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        for position in range(1, len(ids) - 1):
            given = ids.clone()
            given[position] = tokenizer.mask_token_id
            rows.append((given, position, ids[position]))
    length = max(len(ids) for ids, _, _ in rows)
    given = torch.full((len(rows), length), tokenizer.pad_token_id)
    for row, (ids, _, _) in enumerate(rows):
        given[row, : len(ids)] = ids
    position, target = (torch.tensor([int(row[k]) for row in rows]) for k in (1, 2))
    mask = (given != tokenizer.pad_token_id).long()
    for _ in range(n_steps):
        logits = model(given, attention_mask=mask).logits[
            torch.arange(len(rows)), position - offset
        ]
        torch.nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
        optimizer.zero_grad()
