"""Buffers that code which comes with a model makes, and that no file has.

transformers makes a model without memory for it and then reads its weights. What a class computes
when it is made and does not save (positions, angles) is not read, and holds whatever was in memory
before. For its own classes transformers computes it again; for others that is done here.
"""

from __future__ import annotations

import copy
from typing import Any

from finetune_lm.errors import UserError, first_line
from finetune_lm.randomness import generator_states, restore_generators


def compute_buffers(name: str, model: Any) -> None:
    """Give a model that was just read the buffers that its class makes, where no file has them.

    Args:
        name: The model, for messages.
        model: The model. One whose class is of transformers is left as it is.

    Raises:
        UserError: If its class cannot be made by its configuration alone.
    """
    if type(model).__module__.startswith("transformers."):
        return
    unsaved = [
        (path, buffer)
        for path, module in model.named_modules()
        for buffer in sorted(module._non_persistent_buffers_set)
        if module._buffers.get(buffer) is not None
    ]
    if not unsaved:
        return
    fresh = _made_again(name, model)
    for path, buffer in unsaved:
        made = fresh.get_submodule(path)._buffers.get(buffer)
        own = model.get_submodule(path)._buffers[buffer]
        if made is None or made.is_meta or made.shape != own.shape:
            raise _problem(name, f"{path}.{buffer}".lstrip("."), "its class makes another")
        own.copy_(made)


def _made_again(name: str, model: Any) -> Any:
    """A model of the same class and configuration, with buffers and without weights."""
    from accelerate import init_empty_weights

    states = generator_states()
    try:
        with init_empty_weights(include_buffers=False):
            return type(model)(copy.deepcopy(model.config))
    except Exception as error:
        # Code that comes with a model has as many kinds of errors as there are.
        raise _problem(name, "its buffers", first_line(error)) from error
    finally:
        restore_generators(states)


def _problem(name: str, what: str, why: str) -> UserError:
    return UserError(
        f"model_name_or_path {name!r}: its code makes buffers that are not saved with the weights, "
        f"and {what} cannot be computed again: {why}."
    )
