"""Compiling a model, and what goes wrong in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError, first_line

if TYPE_CHECKING:
    import torch


def compile_model(model: Any, kwargs: dict[str, Any], device: torch.device) -> None:
    """Let a model be compiled when it is first called.

    Args:
        model: The model; changed in place.
        kwargs: Keyword arguments of ``torch.compile``.
        device: Where it is.

    Raises:
        UserError: If nothing can be compiled so.
    """
    import torch

    given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "nothing"
    try:
        # Compilers are looked for only when something is called.
        torch.compile(_one_more, **kwargs)(torch.ones(2, device=device))
        model.compile(**kwargs)
    except Exception as error:
        raise UserError(
            f"compile does not work here (compile_kwargs gives {given}): {first_line(error)} On a "
            f"CPU it needs a C++ compiler, on a GPU Triton. Leave --compile out: the numbers are "
            f"the same."
        ) from error


def is_compiled(model: Any) -> bool:
    """Whether a model is compiled, so that hooks put on its parts later may not be called."""
    return getattr(model, "_compiled_call_impl", None) is not None


def compiler_problem(error: BaseException) -> str | None:
    """What an error that came when a model was called says of its compiler, if it is one of it."""
    dynamo = sys.modules.get("torch._dynamo.exc")
    if dynamo is None or not isinstance(error, dynamo.TorchDynamoException):
        return None
    return (
        f"the model cannot be compiled in this way: {first_line(error)} Leave --compile out, or "
        "change --compile_kwargs: the numbers are the same."
    )


def _one_more(x: Any) -> Any:
    return x + 1
