from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from families import family
from finetune_lm.study.initial_state import Generators, InitialState
from studies import Misbehave


@pytest.mark.parametrize("name", ["gpt2", "bert", "pythia"])
def test_everything_is_as_it_was(name):
    model = family(name).model
    model.train()
    next(model.children()).eval()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    inputs = torch.tensor([[5, 6, 7]])

    def outputs():
        torch.manual_seed(0)
        return model(inputs).logits.detach().clone()

    before = {key: value.clone() for key, value in model.state_dict().items()}
    ids = {key: id(value) for key, value in model.named_parameters()}
    flags = [module.training for module in model.modules()]
    result = outputs()
    state = InitialState(model)
    for _ in range(2):
        first.requires_grad_(True)
        Misbehave(model, None)(0, 0)
        model(inputs).logits.sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert not torch.equal(outputs(), result)
        state.restore()
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert {key: id(value) for key, value in model.named_parameters()} == ids
        assert [module.training for module in model.modules()] == flags
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not first.requires_grad
        assert torch.equal(outputs(), result)
        # A hook that was registered is not called either, nor can it still be taken away.
        first.requires_grad_(True)
        model(inputs).logits.sum().backward()
        state.restore()


def test_hooks_that_were_there_stay():
    model = family("gpt2").model
    embeddings = model.get_input_embeddings()
    calls = []
    embeddings.register_forward_hook(lambda *_: calls.append(1))
    state = InitialState(model)
    embeddings.register_forward_hook(lambda *_: calls.append(2))
    state.restore()
    model(torch.tensor([[5]]))
    assert calls == [1]


def test_tied_weights_stay_tied():
    model = family("gpt2").model
    state = InitialState(model)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    state.restore()
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_generators():
    state = Generators()

    def draw():
        return random.random(), np.random.rand(), float(torch.rand(1))

    one = draw()
    assert draw() != one
    state.restore()
    assert draw() == one
