"""Losses and callbacks with something to remember, as users may write them."""

from __future__ import annotations

import torch

from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.sharding import is_sharded, part_of


class ForgetfulNoisyLoss(OutputsDefaultLoss):
    """The model's loss times random numbers of its own, which a checkpoint knows nothing of."""

    def __init__(self, model, tokenizer, seed=11):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, outputs, labels):
        return outputs.loss * (0.5 + torch.rand((), generator=self.generator))


class NoisyLoss(ForgetfulNoisyLoss):
    """The same, with its generator in every checkpoint."""

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])


class Unsaid:
    """The model's loss, which does not say how it is put together."""

    def __init__(self, model, tokenizer):
        del model, tokenizer

    def __call__(self, outputs, labels):
        return outputs.loss


class Growing(OutputsDefaultLoss):
    """The model's loss, with four times as much memory for each call as for the one before."""

    def __init__(self, model, tokenizer):
        self.n_calls = 0

    def __call__(self, outputs, labels):
        self.n_calls += 1
        self.kept = torch.ones(2**20 * 4**self.n_calls)
        return outputs.loss


class FreezeAndDamp:
    """Holds the first parameter as it is, and makes gradients smaller from step to step."""

    def __init__(self, model, tokenizer):
        self.model = model
        self.n_steps = 0

    def __call__(self, epoch, batch):
        self.n_steps += 1
        for number, parameter in enumerate(self.model.parameters()):
            if parameter.grad is not None:
                parameter.grad *= 0.0 if number == 0 else 0.9**self.n_steps

    def state_dict(self):
        return {"n_steps": self.n_steps}

    def load_state_dict(self, state):
        self.n_steps = state["n_steps"]


class SplitAlike:
    """Sees that the untouched model is split among ranks where the model is."""

    def __init__(self, model, tokenizer):
        self.model = model

    def __call__(self, epoch, batch=None):
        untouched = origin_of(self.model).baseline().model
        assert is_sharded(untouched) == is_sharded(self.model)
        if is_sharded(self.model):
            parts = [len(part_of(each)) for each in untouched.parameters()]
            assert sum(parts) < sum(map(len, untouched.parameters()))
