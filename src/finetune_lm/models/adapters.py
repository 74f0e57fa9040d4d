"""The adapter of a model, by PEFT: what belongs to it, and how it is saved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import BUILTIN_MODELS
from finetune_lm.messages import silent
from finetune_lm.models.loading import arguments_of, load_model
from finetune_lm.models.pretrained import model_path
from finetune_lm.models.saved_adapters import PREFIX, WEIGHTS, quiet
from finetune_lm.models.untouched import keep_apart, shared_weights
from finetune_lm.randomness import generator_states, restore_generators

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

_ATTRIBUTE = "_finetune_lm_adapter"


@dataclass
class Adapter:
    """The adapter of a model.

    The model itself has its layers in place, so that all else need not know of it. PEFT's own
    object around the model serves for saving.

    Attributes:
        around: PEFT's object.
        of_model: The names that weights of the model itself have now. All others are the adapter's.
        merge: Whether the model is to be saved with the adapter merged into it.
    """

    around: Any
    of_model: frozenset[str]
    merge: bool = False

    @property
    def model(self) -> Any:
        """The model."""
        return self.around.base_model.model

    def weights(self) -> Iterator[Parameter]:
        """The parameters that are the adapter's own."""
        for name, weight in self.model.named_parameters():
            if name not in self.of_model:
                yield weight

    def save_pretrained(self, directory: str | Path) -> None:
        """Save it as PEFT does, so that PEFT loads it onto the model that was named.

        Weights of the model itself that are not those of the model that was named any more, such
        as embeddings with rows for new words, are saved along.

        Args:
            directory: Where to. It is made.
        """
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        tensors = {
            name: tensor.detach().cpu().clone(memory_format=_contiguous())
            for name, tensor in {
                **get_peft_model_state_dict(self.around, save_embedding_layers=False),
                **self._moved(),
            }.items()
        }
        Path(directory).mkdir(parents=True, exist_ok=True)
        save_file(tensors, Path(directory) / WEIGHTS, metadata={"format": "pt"})
        config = copy.deepcopy(self.around.peft_config["default"])
        config.base_model_name_or_path, config.revision = _named(self.model)
        config.inference_mode = True
        for name, value in vars(config).items():
            if isinstance(value, set):  # whose order is another in each process
                setattr(config, name, sorted(value))
        config.save_pretrained(str(directory))

    def _moved(self) -> dict[str, Any]:
        """Weights of the model itself that are not those of the model that was named any more."""
        shared = shared_weights(self.model)
        found = {
            name: weight
            for name, weight in self.model.named_parameters()
            if name in self.of_model and id(weight) not in shared
        }
        return {f"{PREFIX}{name}": weight for name, weight in found.items()}

    def merged(self) -> Any:
        """A copy of the model in which the adapter is merged into its weights: a plain model."""
        mine = adapter_of(copy.deepcopy(self.model))
        assert mine is not None
        with quiet():
            model = mine.around.merge_and_unload()
        vars(model).pop(_ATTRIBUTE)
        return model.requires_grad_(True)


def keep_adapter(model: Any, adapter: Adapter) -> None:
    """Remember the adapter of a model, also in copies of the model."""
    vars(model)[_ATTRIBUTE] = adapter


def adapter_of(model: Any) -> Adapter | None:
    """The adapter of a model; None if it has none."""
    adapter: Adapter | None = vars(model).get(_ATTRIBUTE)
    return adapter


def whole_again(model: Any, weights: Mapping[str, Tensor]) -> Any:
    """A model that is split among ranks as a whole one on the CPU, with its adapter.

    It is loaded and modified once more. One rank may ask alone.

    Args:
        model: The model.
        weights: Those that are not as they were named, by name, whole.
    """
    import torch

    args = arguments_of(model)
    assert args is not None
    states = generator_states()
    with silent():
        whole = load_model(args).model
    restore_generators(states)
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name, weight in whole.named_parameters():
        weight.requires_grad_(name in learns)
    keep_apart(whole)
    with torch.no_grad():
        tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
        for name, value in weights.items():
            tensors[name].copy_(value)
    return whole


def _named(model: Any) -> tuple[str | None, str | None]:
    """The model that an adapter is for, as whoever loads it is to find it, and its revision."""
    args = arguments_of(model)
    if args is None:
        return getattr(model, "name_or_path", None) or None, None
    name = args.model_name_or_path
    revision = args.model_revision if isinstance(args.model_revision, str) else None
    is_local = name in BUILTIN_MODELS or Path(name).exists()
    return (str(Path(model_path(name)).resolve()), None) if is_local else (name, revision)


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format
