"""The one exception that a user is meant to see, and which others can become one."""

from __future__ import annotations


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
