"""What comes before the first step: seeds, arithmetic, the device."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from finetune_lm.fast.tuning import tune
from finetune_lm.messages import warn

if TYPE_CHECKING:
    import accelerate


def prepare_process(seed: int, use_gpu: bool, *, fast: bool = True) -> accelerate.Accelerator:
    """Seed all generators, see to exact arithmetic, and choose the device.

    Args:
        seed: Everything random follows from it.
        use_gpu: Whether to run on a GPU.
        fast: Whether to make settings of the process that save time.
    """
    import transformers

    # Bars for the loading and saving of single tensors, beside the bar over epochs.
    transformers.utils.logging.disable_progress_bar()
    seed_everything(seed)
    accelerator = make_accelerator(use_gpu)
    if fast and accelerator.device.type == "cpu":
        tune()
    warm_up_arithmetic()
    return accelerator


def seed_everything(seed: int) -> None:
    """Make all that is random follow from the seed."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def warm_up_arithmetic() -> None:
    """Compute some exponentials and logarithms before any that count.

    The first call of such a function with several threads may come out at low precision on a CPU
    (pytorch/pytorch issue 188792).
    """
    import torch

    for function in (torch.exp, torch.log, torch.tanh, torch.erf):
        function(torch.ones(1))
        function(torch.ones(2**16))


def make_accelerator(use_gpu: bool) -> accelerate.Accelerator:
    """The device to run on: CUDA, else Apple's MPS, else the CPU."""
    import accelerate
    from accelerate.state import AcceleratorState, PartialState

    # Accelerate keeps the device of the first run of a process unless told to forget it.
    AcceleratorState._reset_state()
    PartialState._reset_state()
    accelerator = accelerate.Accelerator(cpu=not use_gpu)
    if use_gpu and accelerator.device.type == "cpu":
        warn("use_gpu is set but torch finds no GPU here: running on the CPU.")
    return accelerator
