"""Processes that each make a part of an update make the update of one process."""

from __future__ import annotations

import copy
import threading
import types
from types import SimpleNamespace

import pytest
import torch

from finetune_lm import DataTrainingArguments
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.measures import Rank
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.model_modifiers.model_callback import ModelCallback
from finetune_lm.ranks import World
from finetune_lm.training import divided_updates
from finetune_lm.training.divided_updates import DividedUpdates, _n_bytes, dividing_updates
from finetune_lm.training.several_optimizers import SeveralOptimizers
from finetune_lm.training.step import Learner

SHAPES = [(7, 30), (5,), (300, 16), (2, 3, 4), (40,)]
KINDS = [torch.float32, torch.float32, torch.float32, torch.float64, torch.bfloat16]
# Which of the processes have a gradient of each at a step: of the last nobody has one at the first.
HAVE = [[(0, 1, 2), (1,), (0, 2), (0, 1, 2), ()], [(0, 1), (0, 1, 2), (1, 2), (2,), (0,)]]
OPTIMIZERS = {
    "AdamW": lambda ws: torch.optim.AdamW(ws, lr=0.01, weight_decay=0.1, fused=True),
    "Adam": lambda ws: torch.optim.Adam(ws, lr=0.01, amsgrad=True, foreach=True),
    "Adamax": lambda ws: torch.optim.Adamax(ws, lr=0.01),
    "NAdam": lambda ws: torch.optim.NAdam(ws, lr=0.01),
    "RAdam": lambda ws: torch.optim.RAdam(ws, lr=0.01),
    "RMSprop": lambda ws: torch.optim.RMSprop(ws, lr=0.01, momentum=0.5, centered=True),
    "SGD": lambda ws: torch.optim.SGD(ws, lr=0.01, momentum=0.9),
    "groups": lambda ws: torch.optim.AdamW(
        [{"params": ws[:2]}, {"params": ws[2:], "lr": 0.5, "betas": (0.5, 0.6)}]
    ),
    "several": lambda ws: SeveralOptimizers(
        [torch.optim.SGD(ws[::2], lr=0.1), torch.optim.AdamW(ws[1::2], lr=0.1)]
    ),
}


class Threads:
    """Threads that stand for ranks of one machine: each is one."""

    def __init__(self, size):
        self.size, self.barrier = size, threading.Barrier(size, timeout=300)
        self.told, self.here = [None] * size, threading.local()
        self.memory = None

    def __call__(self):
        return self.here.rank

    def do(self, what):
        """What a function returns in each of them, or the first error."""
        found = [None] * self.size

        def be(number):
            self.here.rank = rank = World()
            rank.rank, rank.size = number, self.size
            rank.gather, rank.common_memory = self.gather, self.common_memory
            try:
                found[number] = what(number)
            except Exception as error:
                found[number] = error
                self.barrier.abort()

        threads = [threading.Thread(target=be, args=(number,)) for number in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, threading.BrokenBarrierError):
                raise error
        return found

    def gather(self, value):
        self.told[self.here.rank.rank] = value
        self.barrier.wait()
        told = list(self.told)
        self.barrier.wait()
        return told

    def common_memory(self, n_bytes):
        if self.here.rank.is_first:
            self.memory = torch.zeros(n_bytes, dtype=torch.uint8)
        self.gather(None)
        return self.memory


def made_weights():
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [torch.nn.Parameter(w.to(kind)) for w, kind in zip(drawn, KINDS, strict=True)]


def gradients_of(rank, step):
    generator = torch.Generator().manual_seed(10 * step + rank)
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    have = HAVE[min(step, 1)]
    return [
        g.to(kind) if rank in ranks else None
        for g, kind, ranks in zip(drawn, KINDS, have, strict=True)
    ]


def set_gradients(weights, rank, step, rooms):
    for weight, gradient in zip(weights, gradients_of(rank, step), strict=True):
        weight.grad = gradient
        if gradient is not None and weight.ndim == 2:  # it is made where it is to be
            weight.grad = rooms[rank, weight.data_ptr()].view(weight.shape).copy_(gradient)


def leaves(optimizer):
    return getattr(optimizer, "optimizers", [optimizer])


def loaded(name, weights, states):
    optimizer = OPTIMIZERS[name](weights)
    for each, state in zip(leaves(optimizer), states, strict=True):
        each.load_state_dict(state)
    return optimizer


def one_process(name, size, n_steps, max_norm):
    """Weights and states after steps with the sums of gradients."""
    weights = made_weights()
    optimizer = OPTIMIZERS[name](weights)
    for step in range(n_steps):
        if step == 2:
            states = copy.deepcopy([each.state_dict() for each in leaves(optimizer)])
            optimizer = loaded(name, weights, states)
        for weight, *found in zip(
            weights, *(gradients_of(r, step) for r in range(size)), strict=True
        ):
            there = [each for each in found if each is not None]
            weight.grad = None
            for each in there:
                weight.grad = each if weight.grad is None else weight.grad + each
        torch.nn.utils.clip_grad_norm_(weights, max_norm)
        optimizer.step()
    return weights, [each.state_dict() for each in leaves(optimizer)]


def assert_same(found, expected, exactly):
    if isinstance(expected, torch.Tensor):
        # A norm is rounded in another order.
        near = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-2, "atol": 1e-5}
        torch.testing.assert_close(found, expected, **near)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, exactly)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, exactly)
    else:
        assert found == expected


@pytest.mark.parametrize("size", [2, 3])
def test_parts_come_to_the_update_and_the_state_of_one_process(monkeypatch, size):
    """To the bit, if nothing is clipped; also gone on with from a checkpoint."""

    def do(rank):
        def begun(optimizer, weights):
            memory = divided_updates.world().common_memory(_n_bytes(weights) * (size + 1))
            return DividedUpdates(weights, leaves(optimizer), memory)

        weights = made_weights()
        before = [weight.data_ptr() for weight in weights]
        optimizer = OPTIMIZERS[name](weights)
        divided = begun(optimizer, weights)
        for step in range(4):
            if step == 2:  # another process goes on from what the first has written
                states = [each.state_dict() for each in leaves(optimizer)]
                states = copy.deepcopy(divided_updates.world().gather(states)[0])
                divided.end()
                assert [weight.data_ptr() for weight in weights] == before
                optimizer = loaded(name, weights, states)
                divided = begun(optimizer, weights)
            # Of what shares a storage a checkpoint would make copies.
            assert len({each.untyped_storage().data_ptr() for each in weights}) == len(weights)
            set_gradients(weights, rank, step, rooms)
            divided.add_up()
            divided.clip(max_norm)
            optimizer.step()
            divided.wait()
            divided.forget_gradients()
        n_kept = sum(
            value.numel()
            for each in leaves(optimizer)
            for state in each.state.values()
            for value in state.values()
            if getattr(value, "ndim", 0)
        )
        states = [each.state_dict() for each in leaves(optimizer)]
        divided.end()
        optimizer.zero_grad()
        assert all(weight.grad is None for weight in weights)
        return weights, states, n_kept

    threads = Threads(size)
    monkeypatch.setattr(divided_updates, "world", threads)
    rooms = {}

    def reserve(weight, memory):
        rooms[threads().rank, weight.data_ptr()] = memory

    monkeypatch.setattr(divided_updates.scratch, "reserve", reserve)
    for name in OPTIMIZERS:
        for max_norm in (1e9, 1.0) if name in ("AdamW", "several") else (1e9,):
            expected, states = one_process(name, size, 4, max_norm)
            ranks = threads.do(do)
            for weights, _, n_kept in ranks:
                assert_same([*weights], [*expected], max_norm > 1)
                # None has more than about its part.
                whole = sum(n for _, _, n in ranks)
                assert n_kept <= whole / size + 64 or name == "several"
            assert_same(ranks[0][1], states, max_norm > 1)


class Own(ModelCallback):
    """A callback of the user's own."""


def learner(*callbacks, model=None, optimizer=torch.optim.AdamW, **more):
    model = model or torch.nn.Linear(3, 3)
    accelerator = SimpleNamespace(device=torch.device("cpu"), scaler=None)
    made = optimizer(model.parameters(), lr=0.1)
    return Learner(model, made, accelerator, Callbacks({"end_epoch": callbacks}), **more)


def hooked(hang):
    """A model on which a function of the user's own is hung."""
    model = torch.nn.Linear(3, 3)
    hook = types.FunctionType((lambda *_: None).__code__, {"__name__": "mine"})
    hang(model)(hook)
    return model


def bound():
    model = torch.nn.Linear(3, 3)
    model.bias = torch.nn.Parameter(model.weight.data[0])
    return model


def test_updates_are_divided_where_nothing_can_tell(monkeypatch):
    """Of a package that is not known each may do anything to the weights, or look at gradients."""
    unknown = {"__module__": "mine"}
    loss = type("Loss", (OutputsDefaultLoss,), unknown)
    measure = type("Measure", (Rank,), unknown)
    callback = type("Callback", (ModelCallback,), unknown)(None, None)
    model = type("Model", (torch.nn.Linear,), unknown)
    optimizer = type("Optimizer", (torch.optim.AdamW,), unknown)
    scheduler = type("Scheduler", (torch.optim.lr_scheduler.ConstantLR,), unknown)
    cases = [
        ({}, {}, True),
        ({"measures": {"test": [Rank]}, "lr_scheduler": "linear"}, {}, True),
        ({}, {"optimizer": torch.optim.SGD}, True),
        ({"loss_classes": {"train": [loss]}}, {}, False),
        ({"measures": {"test": [measure]}}, {}, False),
        ({"lr_scheduler": scheduler}, {}, False),
        ({"fast": False}, {}, False),
        ({}, {"optimizer": torch.optim.Adafactor}, False),
        ({}, {"optimizer": optimizer}, False),
        ({}, {"model": model(3, 3)}, False),
        ({}, {"model": bound()}, False),
        ({}, {"model": hooked(lambda m: m.register_forward_hook)}, False),
        ({}, {"model": hooked(lambda m: m.register_full_backward_hook)}, False),
        ({}, {"model": hooked(lambda m: m.weight.register_hook)}, False),
        ({}, {"model": hooked(lambda m: m.bias.register_post_accumulate_grad_hook)}, False),
        ({}, {"model": torch.nn.Embedding(3, 3, max_norm=1.0)}, False),
        ({}, {"model": torch.nn.Embedding(3, 3, sparse=True)}, False),
    ]
    threads = Threads(2)
    monkeypatch.setattr(divided_updates, "world", threads)

    def is_divided(args, *callbacks, **of_learner):
        def do(_):
            with dividing_updates(args, learner(*callbacks, **of_learner)) as inside:
                return inside.divided is not None

        return threads.do(do)

    for given, of_learner, expected in cases:
        args = DataTrainingArguments(**given)
        assert is_divided(args, **of_learner) == [expected] * 2, (given, of_learner)
    assert is_divided(DataTrainingArguments(), callback) == [False] * 2
    assert is_divided(DataTrainingArguments(), ModelCallback(None, None)) == [True] * 2
