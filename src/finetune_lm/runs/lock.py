"""One process at a time writes into an output directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from finetune_lm.errors import UserError
from finetune_lm.runs import directory

if TYPE_CHECKING:
    from finetune_lm.runs.run_plan import Plan

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"


class InUseError(UserError):
    """Another process has the lock of a directory."""


class RunLock:
    """Held while a run writes into a directory.

    The lock is one of the operating system's, which ends with the process however that ends: the
    file that a killed run leaves is no obstacle. It names the process, for messages, and for file
    systems without locks.

    Args:
        directory: The output directory.

    Example:
        >>> with RunLock(Path("outputs/mine")):  # doctest: +SKIP
        ...     ...
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self._handle: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            InUseError: If another process has it.
            UserError: If there can be none here.
        """
        while True:
            handle = self._open()
            try:
                self._check_free(handle)
                # Its holder may have removed the file between our opening and locking it.
                if _is_same(handle, self.path):
                    break
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        self._handle = handle
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        # The lock holds without it, and where there is no room what comes next will say so.
        with suppress(OSError):
            os.write(handle, json.dumps(holder).encode())
        return self

    def is_held(self) -> bool:
        """Whether another process has the lock now, or may have it."""
        if not self.path.exists():
            return False
        try:
            with self:
                return False
        except UserError:  # or it cannot be asked by who may only read
            return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        if self._handle is not None:
            with suppress(OSError):  # the directory may be gone
                self.path.unlink()
            os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"output_dir must be writable but {self.path.parent} is not: {error.strerror}."
            ) from None

    def _check_free(self, handle: int) -> None:
        holder = _read_holder(handle)
        try:
            if fcntl is None:
                raise OSError("no locks")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"output_dir {self.path.parent} must not be used by two runs at a time, but "
                f"{_named(holder)} is writing into it."
            ) from None
        except OSError:
            # No locks in this file system.
            if holder and _may_run(holder):
                raise InUseError(
                    f"output_dir {self.path.parent} must not be used by two runs at a time, but "
                    f"{_named(holder)} may be writing into it. If that has ended, remove "
                    f"{self.path}."
                ) from None


def _read_holder(handle: int) -> dict[str, Any]:
    with suppress(ValueError, OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        holder = json.loads(os.read(handle, 4096))
        if isinstance(holder, dict):
            return holder
    return {}


def _named(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')}"


def _may_run(holder: dict[str, Any]) -> bool:
    """Whether a process may still be there: on another computer that cannot be told."""
    if holder.get("host") != socket.gethostname():
        return True
    import psutil

    pid = holder.get("pid")
    return isinstance(pid, int) and psutil.pid_exists(pid)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Make a new run's output directory, and keep others from writing into it."""
    directory.make_output_dir(plan.directory)
    with RunLock(plan.directory):
        # Once more, since another run may have come and gone while the model was loaded.
        directory.check_output_dir(plan.directory, plan.all_args[1], plan.identity)
        yield
