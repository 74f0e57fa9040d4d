"""The one exception that a user is meant to see, and which others can become one."""

from __future__ import annotations

import sys


class UserError(Exception):
    """Something the user can put right: what must hold, what came, what to do.

    The command line prints each message on a line of its own, without a traceback, and exits with
    status 2. Several problems found together are raised together.

    Args:
        *problems: One message for each problem, at least one.

    Example:
        >>> raise UserError("patience cannot be negative but got -1.")
        Traceback (most recent call last):
        ...
        finetune_lm.errors.UserError: patience cannot be negative but got -1.
    """

    def __init__(self, *problems: str) -> None:
        if not problems:
            raise ValueError("UserError needs at least one message.")
        super().__init__("\n".join(problems))
        self.problems = problems


_SIGNS = (
    "out of memory",  # CUDA and MPS
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",  # the same on Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on whatever device."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, kinds):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
