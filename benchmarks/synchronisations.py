"""How often a training batch waits for the device.

Counted on the CPU, where nothing waits: every tensor that comes of a weight or that is brought to a
device counts as one that would be on the device, and every call that brings one of these to Python
as a wait. (``numpy`` is none, since it takes no tensor that is on a device, and ``from_device`` is
none, since it brings numbers later.) On a GPU ``gpu.py`` asks torch itself.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

import workload
from finetune_lm.data.batch import from_device
from measuring import Row

TARGET = 0
_WAITS = ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__")
_MARK = "is_on_device"
WAITING = {getattr(torch.Tensor, name): name for name in _WAITS}


class Waits(TorchFunctionMode):
    """Counts the calls that wait for the device.

    Attributes:
        met: The names of these calls, in order.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.met: list[str] = []
        for weight in model.parameters():
            setattr(weight, _MARK, True)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and tell by what it is given whether it waits."""
        given = tree_flatten([args, kwargs or {}])[0]
        is_of_device = any(getattr(value, _MARK, False) for value in given)
        if func is torch.Tensor.to and any(isinstance(value, torch.device) for value in given):
            # It would be a copy, and the one that it is of stays where it is.
            copy = func(*args, **(kwargs or {})).view_as(args[0])
            setattr(copy, _MARK, True)
            return copy
        if is_of_device and func in WAITING and not _comes_later(sys._getframe(1)):
            self.met.append(WAITING[func])
        result = func(*args, **(kwargs or {}))
        if is_of_device and WAITING.get(func) != "cpu":
            for value in tree_flatten(result)[0]:
                if isinstance(value, torch.Tensor):
                    setattr(value, _MARK, True)
        return result


def _comes_later(caller: FrameType) -> bool:
    return caller.f_code is from_device.__code__


def run(quick: bool = False) -> list[Row]:
    """Waits for the device in a training batch with every token recorded."""
    del quick
    workload.one_thread()
    model = workload.causal_model("tiny")
    made = workload.experiment(model, workload.built_in_tokenizer(), workload.taught())
    first, second = made.batches[:2]
    # The first batch is where the fast way is compared with the plain one.
    made.step(first)
    with Waits(model) as waits:
        made.step(second)
    what = f"waits for the device in a training batch ({', '.join(waits.met) or 'none'})"
    return [Row.at_most(what, "–", len(waits.met), TARGET)]
