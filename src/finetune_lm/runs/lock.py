"""One process at a time writes into an output directory."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from finetune_lm.errors import UserError
from finetune_lm.ranks import world
from finetune_lm.runs import directory

if TYPE_CHECKING:
    from finetune_lm.runs.run_plan import Plan

LOCK = ".lock"

# What another process had locked may be gone by the time it is opened; then there is another try.
_SECONDS_FOR_ANOTHER_TRY = 0.02


class InUseError(UserError):
    """Another process has the lock of a directory."""


class RunLock:
    """Held while a run writes into a directory; of several ranks the first has it.

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
        self._is_held = False
        # A lock that is there as long as its file is (filelock's own way out where a file system
        # has no others) would outlive a process that is killed.
        self._lock = FileLock(
            self.path,
            timeout=_SECONDS_FOR_ANOTHER_TRY,
            poll_interval=_SECONDS_FOR_ANOTHER_TRY / 4,
            mode=0o644,
            fallback_to_soft=False,
            on_acquired=_write_holder,
        )

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            InUseError: If another process has it.
            UserError: If there can be none here.
        """
        if not world().is_first:
            return self
        if not self.path.parent.is_dir():  # filelock would make it
            raise UserError(f"output_dir must be a directory but there is no {self.path.parent}.")
        before = _read_holder(self.path)
        try:
            self._lock.acquire()
        except Timeout:
            raise InUseError(
                f"output_dir {self.path.parent} must not be used by two runs at a time, but "
                f"{_named(_read_holder(self.path))} is writing into it."
            ) from None
        except OSError as error:
            # The file itself could not be opened, or this file system has no locks.
            if error.filename is not None:
                raise UserError(
                    f"output_dir must be writable but {self.path.parent} is not: {error.strerror}."
                ) from None
            self._check_free_without_locks(before)
        self._is_held = True
        return self

    def _check_free_without_locks(self, holder: dict[str, Any]) -> None:
        """Go by the name in the file, where nothing better is to be had."""
        if holder and _may_run(holder):
            raise InUseError(
                f"output_dir {self.path.parent} must not be used by two runs at a time, but "
                f"{_named(holder)} may be writing into it. If that has ended, remove {self.path}."
            ) from None
        with suppress(OSError):
            self.path.write_bytes(_holder())

    def is_held(self) -> bool:
        """Whether another process has the lock now, or may have it."""
        if not self.path.exists():
            return False
        try:
            with self:
                return False
        except UserError:  # or it cannot be asked by who may only read
            return True

    def __exit__(self, *error: object) -> None:
        """Give it back."""
        if self._is_held:
            self._is_held = False
            # Who has opened it meanwhile sees that it is gone, and tries again.
            with suppress(OSError):  # the directory may be gone
                self.path.unlink()
            self._lock.release()


def _holder() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()


def _write_holder(handle: int) -> None:
    """Name this process in the file of a lock that it has."""
    # The lock holds without it, and where there is no room what comes next will say so.
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, _holder())


def _read_holder(path: Path) -> dict[str, Any]:
    with suppress(ValueError, OSError):
        holder = json.loads(path.read_bytes()[:4096])
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


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Make a new run's output directory, and keep others from writing into it.

    Of several ranks the first does that for all.
    """
    if not world().is_first:
        yield
        return
    directory.make_output_dir(plan.directory)
    with RunLock(plan.directory):
        # Once more, since another run may have come and gone while the model was loaded.
        directory.check_output_dir(plan.directory, plan.all_args[1], plan.identity)
        yield
