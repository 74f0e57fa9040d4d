"""A model whose weights, gradients and optimizer states are split among several processes (FSDP2).

Each process holds a part of each parameter, its rows or whatever its first dimension counts, and is
given the whole of a layer while that is computed. So the processes call such a model, forward and
backward, equally often and together, or wait for each other for ever.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError
from finetune_lm.ranks import world

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.arguments import ModelArguments

_ROOT = "_finetune_lm_root"
"""The attribute of a split model by which it has its door."""


def is_to_be_split(args: ModelArguments) -> bool:
    """Whether the models of a run are split among its processes. One process splits none."""
    return args.fsdp and world().size > 1


def shard(models: Sequence[Any], device: torch.device) -> None:
    """Split a model among the processes of a run, layer by layer, and put it on its device.

    Its parameters are others afterwards (``DTensor``), so what refers to them comes later. No
    process waits for another one meanwhile.

    Args:
        models: The model, the same in all processes, on the CPU or the device; one that has several
            modes in each of them, with the same parameters under the same names.
        device: Where this process computes. There it takes no more memory meanwhile than its part
            and the largest layer, or the embeddings if these are larger.

    Raises:
        UserError: If torch is too old for it, or a gradient is changed by what would not see the
            parts.
    """
    from torch.distributed import fsdp

    from finetune_lm.models.doors import Door

    kind = getattr(fsdp, "FSDPModule", None)
    if kind is None or not hasattr(kind, "set_gradient_divide_factor"):
        raise UserError("fsdp needs torch 2.8 or later. Install a newer torch.")
    _check_hooks(models)
    # Nobody changes them: `Forward` sees to that.
    warnings.filterwarnings("ignore", message=".*returned a view tensor")
    mesh = world().mesh(device.type)
    # A parameter is put together when one module is called, and that module is of another class
    # then, so it is none of the model's.
    doors = [Door([each.get_submodule(name) for each in models]) for name in layers(models)]
    for door in doors:
        fsdp.fully_shard(door, mesh=mesh)
    root = Door(models, doors)
    parts = {parameter for door in doors for parameter in door.parameters()}
    # Nothing stays whole behind a pass without gradients, so that parameters are parts whenever
    # somebody looks.
    fsdp.fully_shard(root, mesh=mesh, reshard_after_forward=True, ignored_params=parts)
    every: list[Any] = [*doors, root]
    for door in every:
        # What each process has found is its summand of the gradients, of which there is no mean.
        # Not every backend multiplies while it adds.
        door.set_gradient_divide_factor(1.0)
        door.set_force_sum_reduction_for_comms(True)
    for model in models:
        vars(model)[_ROOT] = root


def _check_hooks(models: Sequence[Any]) -> None:
    """Gradients of parts are made without autograd, which calls what hangs on a parameter."""
    for name, parameter in models[0].named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise UserError(
                f"fsdp cannot be given where something is hooked to the gradient of a parameter, "
                f"as to that of {name}: it would not be called. Leave out fsdp, or change "
                f"gradients in a callback (model_pre_train_step_callbacks)."
            )


def layers(models: Sequence[Any]) -> list[str]:
    """The layers that are computed one after the other, and share no parameters with others.

    They are those that a model's class names, or of the class that transformers' own have.
    """
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    model = models[0]
    kinds = {kind for each in models for kind in getattr(each, "_no_split_modules", None) or ()}
    found: dict[str, Any] = {}
    for name, several in model.named_modules():
        if isinstance(several, torch.nn.ModuleList) and not any(map(f"{name}.".startswith, found)):
            found |= {
                f"{name}.{number}.": each
                for number, each in several.named_children()
                if isinstance(each, GradientCheckpointingLayer) or type(each).__name__ in kinds
            }
    n_names = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    of_its_own = [
        Counter(id(p) for _, p in layer.named_parameters(remove_duplicate=False)).items()
        for layer in found.values()
    ]
    return [
        name.removesuffix(".")
        for name, counts in zip(found, of_its_own, strict=True)
        if counts and all(n_names[parameter] == n for parameter, n in counts)
    ]


def put_together_no_more(model: Any) -> None:
    """Leave of a split model the parts, behind a call that an error has ended."""
    if (root := vars(model).get(_ROOT)) is not None:
        for door in (root, *root.inner):
            door.reshard()


def is_sharded(model: Any) -> bool:
    """Whether a model is split among processes."""
    return any(_is_part(parameter) for parameter in model.parameters())


def part_of(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, as it is in memory: all of it, unless it is split."""
    split: Any = tensor
    part: Tensor = split.to_local() if _is_part(tensor) else tensor
    return part


def same_part(whole: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a tensor if it is split as another of its shape is.

    Args:
        whole: All of it, or something that broadcasts to that.
        like: The other.
    """
    if not _is_part(like) or not whole.ndim or len(whole) == 1 < len(like):
        return whole
    # As `fully_shard` does it.
    parts = whole.chunk(world().size)
    return parts[world().rank] if world().rank < len(parts) else whole[:0]


def whole_of(value: Any) -> Any:
    """Tensors that are split, put together, in whatever dictionaries and lists they stand.

    All processes have to ask. All but the first, which writes, are given something empty for them.
    """
    if isinstance(value, Mapping):
        return {key: whole_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(whole_of, value)) if type(value) in (list, tuple) else value
    if not _is_part(value):
        return value
    whole = value.full_tensor().detach()
    return whole.cpu() if world().is_first else whole.new_empty(0, device="cpu")


def split_as(tensor: Tensor, part: Tensor) -> Tensor:
    """What is split as a tensor is, and of which this process holds this part."""
    if not _is_part(tensor):
        return part
    from torch.distributed.tensor import DTensor

    of: Any = tensor
    return DTensor.from_local(
        part,
        of.device_mesh,
        of.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def split_evenly(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, split among all ranks by its rows."""
    from torch.distributed.tensor import Shard, distribute_tensor

    split: Tensor = distribute_tensor(tensor, world().mesh("cpu"), [Shard(0)])
    return split


def split_state(state: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """An optimizer's state of whole tensors, split as its parameters are."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not any(map(_is_part, parameters)):
        return state
    if "optimizers" in state:  # several that make their steps as one
        each = zip(state["optimizers"], optimizer.optimizers, strict=True)
        return {"optimizers": [split_state(of_one, one) for of_one, one in each]}
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    of_parameter = dict(zip(numbers, parameters, strict=True))
    return {
        **state,
        "state": {
            number: {name: _split_as(of_parameter[number], value) for name, value in kept.items()}
            for number, kept in state["state"].items()
        },
    }


def _split_as(parameter: Any, value: Any) -> Any:
    if not _is_part(parameter) or getattr(value, "shape", None) != parameter.shape:
        return value
    return split_as(parameter.detach(), same_part(value.to(parameter.device), parameter).clone())


def _is_part(tensor: Any) -> bool:
    """Whether a tensor is split among processes."""
    return hasattr(tensor, "full_tensor") and hasattr(tensor, "to_local")
