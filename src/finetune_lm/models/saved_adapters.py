"""Directories that hold an adapter, and not the model that it is for."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from finetune_lm.constants import BUILTIN_MODELS
from finetune_lm.errors import UserError, first_line

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Begins the names of the weights in such a file."""


def check_peft(what: str) -> None:
    """See that PEFT is installed.

    Args:
        what: What needs it, for the message.

    Raises:
        UserError: If it is not.
    """
    if find_spec("peft") is None:
        raise UserError(
            f"{what} needs the package peft, which is not installed: "
            f"pip install 'finetune-lm[peft]'"
        )


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter in a directory, as PEFT saves it.

    Attributes:
        directory: Where it is.
        base: The model that it is for: a directory, or a name on the Hub.
        revision: Of that, on the Hub.
    """

    directory: Path
    base: str
    revision: str

    @classmethod
    def find(cls, name: str) -> Self | None:
        """The adapter in a directory; None if it holds a whole model, or is no directory.

        Raises:
            UserError: If its configuration cannot be read, or names no model.
        """
        path = Path(name)
        if not os.path.isfile(path / CONFIG) or os.path.isfile(path / "config.json"):  # noqa: PTH113
            return None
        try:
            config = json.loads((path / CONFIG).read_text("utf-8"))
            base, revision = config.get("base_model_name_or_path"), config.get("revision")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{path / CONFIG} cannot be read: {first_line(error)}") from None
        if not base:
            raise UserError(
                f"model_name_or_path {name!r} is an adapter, so its {CONFIG} must say under "
                f"base_model_name_or_path for which model, but it does not."
            )
        if not Path(base).exists() and Path(base).name in BUILTIN_MODELS:
            base = Path(base).name  # which was in the package of another environment
        return cls(path, base, revision or "main")

    def put_into(self, model: Any) -> Any:
        """Give a model the adapter, which changes it in place.

        Args:
            model: The model that it is for, as it was named.

        Returns:
            PEFT's object around the model, whose ``merge_and_unload()`` makes it a plain one again.

        Raises:
            UserError: If it is not for this model, or not whole.
        """
        check_peft(f"model_name_or_path {str(self.directory)!r}")
        import peft
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.directory / WEIGHTS)
            _make_room(model, tensors)
            config = peft.PeftConfig.from_pretrained(str(self.directory))
            config.inference_mode = False
            with quiet():
                around = peft.get_peft_model(model, config)
                result = peft.set_peft_model_state_dict(around, tensors)
        except Exception as error:  # of safetensors, of PEFT, of torch
            raise self._not_for_it(first_line(error)) from error
        needed = peft.get_peft_model_state_dict(around, save_embedding_layers=False)
        if strange := [*result.unexpected_keys, *(needed.keys() - tensors.keys())]:
            raise self._not_for_it(f"they do not have the same weights ({sorted(strange)[0]})")
        model.eval()
        return around

    def _not_for_it(self, reason: str) -> UserError:
        return UserError(
            f"model_name_or_path {str(self.directory)!r} is an adapter that does not go with "
            f"{self.base!r}, for which it says that it is: {reason}."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what PEFT warns of, all of which is looked at here by what the model predicts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _make_room(model: Any, tensors: Mapping[str, Any]) -> None:
    """Let a model have as many rows of embeddings as were saved along, if these are more."""
    inputs = model.get_input_embeddings()
    names = [name for name, module in model.named_modules() if module is inputs]
    rows = max((_n_rows(tensors, f"{PREFIX}{name}.") for name in names), default=0)
    if rows > inputs.weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _n_rows(tensors: Mapping[str, Any], beginning: str) -> int:
    found: Iterable[Any] = (
        tensor
        for name, tensor in tensors.items()
        if name.startswith(beginning) and name.endswith("weight") and "lora_" not in name
    )
    return max((int(tensor.shape[0]) for tensor in found), default=0)
