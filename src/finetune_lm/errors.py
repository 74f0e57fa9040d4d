"""The one exception that a user is meant to see, and what others say and come from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress


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

    Attributes:
        exit_status: With which the command line ends.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        if not problems:
            raise ValueError("UserError needs at least one message.")
        super().__init__("\n".join(problems))
        self.problems = problems


class OtherRankError(UserError):
    """Another of the processes that make a run together has ended it.

    Args:
        rank: Which.
        reason: Why, for people.
        exit_status: With which it ends; None if it cannot say so itself.
    """

    def __init__(self, rank: int, reason: str, exit_status: int | None = None) -> None:
        super().__init__(f"rank {rank}: {reason}")
        self.rank = rank
        self.reason = reason
        self.is_said = exit_status is not None
        self.exit_status = exit_status or 1

    @property
    def is_by_signal(self) -> bool:
        """Whether somebody has stopped it, so that nothing is wrong."""
        return self.exit_status > 128


class GivenUpError(UserError):
    """Another rank has gone wrong in what all do together, and goes on with what comes next.

    Args:
        reason: Which rank, and why.
        depth: In what: 1 for the outermost of what is given up by all together.
        is_settled: Whether all have left it.
    """

    def __init__(self, reason: str, depth: int, *, is_settled: bool = False) -> None:
        super().__init__(reason)
        self.depth = depth
        self.is_settled = is_settled


class TrialsFailedError(UserError):
    """Trials of a study went wrong; what there is of it is written all the same."""

    exit_status = 1


@contextmanager
def users_code(name: str) -> Iterator[None]:
    """Let an exception that comes out of a user's callable say out of which.

    Args:
        name: The callable and what it is used as, for people.

    Raises:
        UserError: If it wants to end the program, which is not its business.
    """
    try:
        yield
    except SystemExit as error:
        raise UserError(
            f"{name} must return but called sys.exit({error.code!r}). What was recorded before is "
            f"kept."
        ) from error
    except UserError:
        raise
    except Exception as error:
        if raised_in(error) is None:
            with suppress(AttributeError, TypeError):  # an exception without room for it
                error.finetune_lm_raised_in = name  # type: ignore[attr-defined]
        raise


def raised_in(error: BaseException) -> str | None:
    """The user's callable that an exception came out of; None if it came from elsewhere."""
    name: str | None = getattr(error, "finetune_lm_raised_in", None)
    return name


def first_line(error: BaseException) -> str:
    r"""What an error says first, with the next line if that is only announced; else its class.

    Example:
        >>> first_line(ValueError("no such size:\n  7\nsee above"))
        'no such size: 7'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    n = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:n]) or type(error).__name__
