"""What comes before the first step: seeds, arithmetic, the device and its precision."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import BF16, FP16, FP32, TF32
from finetune_lm.errors import UserError
from finetune_lm.messages import say, warn
from finetune_lm.models.compiling import compile_model
from finetune_lm.models.sharding import is_to_be_split, shard
from finetune_lm.models.untouched import part
from finetune_lm.ranks import world
from finetune_lm.runs.one_process import alone
from finetune_lm.scoring.fast.tuning import tune

if TYPE_CHECKING:
    import accelerate

    from finetune_lm.arguments import ModelArguments


def prepare_process(
    seed: int, args: ModelArguments, *, fast: bool = True
) -> accelerate.Accelerator:
    """Seed all generators, see to exact arithmetic, and choose the device.

    Args:
        seed: Everything random follows from it.
        args: Whether to run on a GPU, in which precision, and whether memory matters more than
            time, since the model is split among ranks.
        fast: Whether to make settings of the process that save time.

    Raises:
        UserError: If the device does not have that precision.
    """
    import transformers

    # Bars for the loading and saving of single tensors, beside the bar over epochs.
    transformers.utils.logging.disable_progress_bar()
    seed_everything(seed)
    world().seed(seed)
    accelerator = make_accelerator(args.use_gpu, args.precision)
    if fast and accelerator.device.type == "cpu":
        tune(is_short_of_memory=is_to_be_split(args))
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


def make_accelerator(use_gpu: bool, precision: str = FP32) -> accelerate.Accelerator:
    """The device to run on: CUDA, else Apple's MPS, else the CPU.

    Args:
        use_gpu: Whether to run on a GPU if there is one.
        precision: One of `constants.PRECISIONS`.

    Raises:
        UserError: If the device does not have that precision.
    """
    import accelerate
    import torch
    from accelerate.state import AcceleratorState, PartialState

    # Accelerate keeps the device of the first run of a process unless told to forget it.
    AcceleratorState._reset_state()
    PartialState._reset_state()
    has_cuda = use_gpu and torch.cuda.is_available()
    if precision in (FP16, TF32) and not has_cuda:
        where = "torch finds none here" if use_gpu else "--use_gpu is not given"
        raise UserError(
            f"precision {precision} needs a CUDA GPU but {where}. On this device use {FP32}, or "
            f"{BF16} where less exact numbers will do."
        )
    if has_cuda:
        torch.backends.cuda.matmul.allow_tf32 = precision == TF32
    mixed = precision if precision in (FP16, BF16) else "no"
    try:
        with nullcontext() if world().size > 1 else alone(), _without_advice():
            accelerator = accelerate.Accelerator(cpu=not use_gpu, mixed_precision=mixed)
    except ValueError as error:
        raise UserError(
            f"precision {precision} is not supported on this device: {error} Use {FP32}."
        ) from error
    if use_gpu and accelerator.device.type == "cpu":
        warn("use_gpu is set but torch finds no GPU here: running on the CPU.")
    return accelerator


@contextmanager
def _without_advice() -> Iterator[None]:
    """Let accelerate share out the threads of a machine among its processes without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        yield


def renew_scaler(accelerator: accelerate.Accelerator) -> None:
    """Let the scale of the loss, which only fp16 has, begin where it does in a new process."""
    import torch

    if accelerator.scaler is not None:
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)


def prepare_models(
    models: Sequence[Any],
    args: ModelArguments,
    accelerator: accelerate.Accelerator,
    *,
    fast: bool,
) -> None:
    """Put a model on its device, and let it compute in the precision and the way asked for.

    Args:
        models: The model in each of its modes; changed in place.
        args: Precision, gradient checkpointing, compilation, and whether it is split among ranks.
        accelerator: Knows the device.
        fast: Whether the fast ways to the same numbers are wanted, which do not go with compiling.

    Raises:
        UserError: If the model or the machine cannot do so.
    """
    if is_to_be_split(args):
        for model in models:
            part(model)
        shard(models, accelerator.device)
    else:
        for model in models:
            model.to(accelerator.device)
    for model in models:
        _let_compute(model, args, accelerator, fast=fast)


def _let_compute(
    model: Any, args: ModelArguments, accelerator: accelerate.Accelerator, *, fast: bool
) -> None:
    """Let a model on its device compute in the precision and the way asked for."""
    import torch

    if accelerator.mixed_precision != "no":
        if all(parameter.dtype == torch.float64 for parameter in model.parameters()):
            warn(
                f"precision {accelerator.mixed_precision} does nothing here, since the model's "
                f"weights are in float64."
            )
        # Also for a run that only tests, which makes no learner.
        accelerator.prepare_model(model, evaluation_mode=True)
    if args.gradient_checkpointing:
        _checkpoint_gradients(model)
    if args.compile:
        compile_model(model, args.compile_kwargs, accelerator.device)
        if fast:
            say("fast: the model is called as usual, since it is compiled.")


def _checkpoint_gradients(model: Any) -> None:
    # The second is what it was called before transformers 5.
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(
        model, "gradient_checkpointing_enable", None
    )
    try:
        if enable is None:
            raise ValueError(f"{type(model).__name__} has no such thing.")
        enable()
    except ValueError as error:
        raise UserError(f"gradient_checkpointing does not work with this model: {error}") from error
