"""Training by hand, with and without callbacks, for tests of what is frozen."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from families import TEXTS

N_STEPS = 50

OPTIMIZERS: dict[str, Any] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "AdamW amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=0.1),
    "SGD nesterov": lambda p: torch.optim.SGD(
        p, lr=1e-2, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, weight_decay=0.1),
}
"""Elementwise: what happens to an entry depends on its own gradients alone."""

FACTORED: dict[str, Any] = {
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2, weight_decay=0.1),
    "Adafactor of transformers": lambda p: transformers.optimization.Adafactor(
        p, lr=1e-2, weight_decay=0.1, scale_parameter=False, relative_step=False, beta1=0.9
    ),
}
"""What happens to an entry depends on the gradients in its row and column too."""


def batches(family: Any) -> list[dict[str, Any]]:
    """Inputs of a family with labels, one sentence each."""
    made = []
    for text in TEXTS:
        inputs = dict(family.tokenizer(text, return_tensors="pt"))
        inputs.pop("token_type_ids", None)
        made.append({**inputs, "labels": inputs["input_ids"].clone()})
    return made


def train(family, optimizer, callback=None, n_steps=N_STEPS, model=None):
    """Train a copy of a family's model as the loop does.

    Returns:
        The model, and the gradients that the optimizer was given at each step.
    """
    model = model or family.model
    optimizer = optimizer(model.parameters())
    data = batches(family)
    gradients = []
    for step in range(n_steps):
        model(**data[step % len(data)]).loss.backward()
        if callback is not None:
            callback(epoch=0, batch=step)
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
        optimizer.step()
        if callback is not None:
            callback.after_step(epoch=0, batch=step)
        optimizer.zero_grad()
    return model, gradients


def replay(model, optimizer, gradients):
    """Let an optimizer step a model with gradients that are given, and nothing else."""
    optimizer = optimizer(model.parameters())
    for of_step in gradients:
        for parameter, gradient in zip(model.parameters(), of_step, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()
    return model


def clone(model):
    return copy.deepcopy(model)
