"""Whether a checkpoint has the weights that its model needs, and which weights these are.

transformers fills what is missing with random numbers and goes on, and what comes of that looks
like surprisals.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.models.sharding import part_of
from finetune_lm.models.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def check_weights(
    name: str,
    task: Task,
    model: Any,
    loading_info: dict[str, Any],
    *,
    ignore_mismatched: bool = False,
) -> None:
    """See that every weight of a model came from its checkpoint.

    Weights that are tied to others come with these, and buffers are computed. A checkpoint may hold
    more than the model takes, such as the head of another task; layers beyond those of the
    configuration are worth a warning.

    Args:
        name: The model, for messages.
        task: What kind it is.
        model: The model.
        loading_info: What transformers says under ``output_loading_info``.
        ignore_mismatched: Whether the user says that weights of another shape may be random.

    Raises:
        UserError: Naming weights that are missing, have another shape than the configuration
            says, or are infinite or no numbers.
    """
    parameters = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    mismatched = sorted(loading_info["mismatched_keys"])
    if mismatched and not ignore_mismatched:
        key, found, needed = mismatched[0]
        raise UserError(
            f"model_name_or_path {name!r} has weights that do not fit its configuration: {key} is "
            f"of shape {tuple(found)} but must be of {tuple(needed)}{_and_more(len(mismatched))}."
        )
    if mismatched:
        warn(
            f"{name} has random weights where those of its checkpoint have another shape: "
            f"{mismatched[0][0]}{_and_more(len(mismatched))}."
        )
    missing = sorted(parameters.intersection(loading_info["missing_keys"]))
    if missing:
        raise UserError(
            f"model_name_or_path {name!r} lacks weights that a {task.description} of type "
            f"{model.config.model_type!r} needs: {missing[0]}{_and_more(len(missing))}. They would "
            f"be random. Name a model that has them."
        )
    _check_finite(name, model)
    beyond = _layers_beyond(loading_info["unexpected_keys"], parameters)
    if beyond:
        warn(
            f"{name} has weights of more layers than its configuration says; they are not used: "
            f"{beyond[0]}{_and_more(len(beyond))}."
        )


def _check_finite(name: str, model: Any) -> None:
    """See that all weights are finite: one that is not spoils every number, or nearly."""
    spoiled = [key for key, parameter in model.named_parameters() if not _is_finite(parameter)]
    if spoiled:
        raise UserError(
            f"model_name_or_path {name!r} must have finite weights, but "
            f"{spoiled[0]}{_and_more(len(spoiled))} has infinite or NaN values. Save the model "
            "again, or use an earlier checkpoint."
        )


def _is_finite(parameter: Any) -> bool:
    import torch

    if not parameter.numel() or parameter.is_meta or not parameter.is_floating_point():
        return True
    values = parameter.detach()
    if values.element_size() == 1:  # eight bits have no minimum of their own
        values = values.float()
    # One pass that takes no memory; what is no number is both minimum and maximum.
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())


def _layers_beyond(unexpected: Iterable[str], parameters: Iterable[str]) -> list[str]:
    """Weights that the model has too, but for a layer of another number."""
    layered = {_NUMBER.sub("*", key) for key in parameters if _NUMBER.search(key)}
    return sorted(key for key in unexpected if _NUMBER.sub("*", key) in layered)


def _and_more(n: int) -> str:
    return f" (and {n - 1} more)" if n > 1 else ""


def hash_of_weights(model: Any) -> str:
    """SHA-256 over the name, shape, type and every byte of a model's parameters and saved buffers.

    Buffers that are not saved are computed, on another processor perhaps to another last digit. Of
    a model that is split among ranks it is of the parts of this one.
    """
    saved = model.state_dict().keys()
    tensors = {
        **dict(model.named_parameters()),
        **{name: buffer for name, buffer in model.named_buffers() if name in saved},
    }
    # hashlib lets other threads run while it reads.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:
        hashes = list(threads.map(_hash_of_tensor, tensors.values()))
    described = [
        [name, list(tensor.shape), str(tensor.dtype), each]
        for (name, tensor), each in zip(tensors.items(), hashes, strict=True)
    ]
    return hashlib.sha256(json.dumps(sorted(described)).encode()).hexdigest()


def _hash_of_tensor(tensor: Tensor) -> str:
    import torch

    values = part_of(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(values.numpy().data).hexdigest()


def hash_of_config(config: Any) -> str:
    """A hash of a model's configuration, behind the version of transformers that has read it.

    Another version may know other settings, so only hashes of one version can be compared.
    """
    import transformers

    settings = config.to_diff_dict()
    for name in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        settings.pop(name, None)
    text = json.dumps(settings, sort_keys=True, default=str)
    return f"{transformers.__version__}:{hashlib.sha256(text.encode()).hexdigest()}"
