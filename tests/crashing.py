"""Runs in processes of their own that die, without any warning, where they are told to."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import context, prepare
from setups import arguments


def in_a_process(function: Callable[..., Any], *args: Any) -> int:
    """Call a function in a new process, which has torch and the rest loaded already.

    Returns:
        Its exit status as a shell has it for users' errors and signals; minus the signal if one
        killed it.
    """
    process = start_process(function, *args)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def start_process(function: Callable[..., Any], *args: Any) -> Any:
    """Begin to call a function in such a process. Returns the process."""
    process = context.Process(target=_call, args=(function, args))
    process.start()
    return process


def _call(function: Callable[..., Any], args: Any) -> None:
    from finetune_lm.errors import UserError

    prepare()
    if log := os.environ.get("CRASHING_LOG"):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    try:
        function(*args)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        status = 2
    except KeyboardInterrupt as interrupt:
        status = 128 + getattr(interrupt, "signal_number", signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        status = 1
    else:
        status = 0
    sys.stderr.flush()
    os._exit(status)


class Events:
    """Counts everything that a run does to its files, and its steps, and kills it at one of them.

    Args:
        fatal: The number of the event, from 1, at which the process gets a signal; None for never.
        count_file: Where the number of events is written in the end.
        number: Which signal.
    """

    def __init__(
        self, fatal: int | None, count_file: Path | None = None, number: int = signal.SIGKILL
    ) -> None:
        self.n = 0
        self._fatal = fatal
        self._count_file = count_file
        self._number = number

    def happen(self) -> bool:
        """Count one more. Returns whether it is the last."""
        self.n += 1
        if self._count_file is not None:
            self._count_file.write_text(str(self.n))
        return self.n == self._fatal

    def kill(self) -> None:
        os.kill(os.getpid(), self._number)

    def install(self) -> None:
        from finetune_lm.evaluation import unfinished_tests
        from finetune_lm.recording import tables
        from finetune_lm.scoring.forward import Forward

        for place, name in (
            *((os, name) for name in ("fsync", "rename", "replace", "link", "truncate")),
            (shutil, "rmtree"),
            (Forward, "__call__"),
            (tables.TableWriter, "write"),
            (unfinished_tests.EvaluationProgress, "add"),
        ):
            setattr(place, name, self._deadly(getattr(place, name)))
        shutil.copyfileobj = self._deadly_in_the_middle

    def _deadly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.happen():
                self.kill()
            return function(*args, **kwargs)

        return call

    def _deadly_in_the_middle(self, source: Any, target: Any, *_: Any) -> None:
        """Append a piece to a table, or half of it."""
        data = source.read()
        if self.happen():
            target.write(data[: len(data) // 2])
            target.flush()
            self.kill()
            data = data[len(data) // 2 :]
        target.write(data)


def do_run(
    directory: str,
    model: dict[str, Any],
    data: dict[str, Any],
    fatal: int | None,
    count: str | None,
    number: int = signal.SIGKILL,
) -> None:
    """Begin a run, or go on with it if it has begun, and die at an event."""
    import finetune_lm

    os.chdir(directory)
    Events(fatal, Path(count) if count else None, number).install()
    # A process that was killed before it had put both on record has left no run.
    if all(Path(data["output_dir"], name).exists() for name in ("run.json", "config.yaml")):
        finetune_lm.resume(data["output_dir"])
    else:
        finetune_lm.run(*arguments(model, data))


def run_limited(kind: int, amount: int, model_args: Any, data_args: Any) -> None:
    """Do a run in a process that may have only so much of something; what it says goes to ``said``.

    Args:
        kind: One of the ``resource.RLIMIT_...``.
        amount: How much, in bytes; of memory, how much more than it has now.
        model_args: Which model.
        data_args: Which data.
    """
    import resource

    import psutil

    import finetune_lm

    if kind == resource.RLIMIT_AS:
        amount += psutil.Process().memory_info().vms
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount, most))
    try:
        finetune_lm.run(model_args, data_args)
    except finetune_lm.UserError as error:
        resource.setrlimit(kind, (most, most))
        Path("said").write_text(str(error))
        raise


def run_with_kills(
    directory: Path, model: dict[str, Any], data: dict[str, Any], fatal_events: list[int]
) -> int:
    """Do a run whose processes are killed one after another, until one finishes.

    Args:
        directory: Where it is started.
        model: Keyword arguments of ``ModelArguments``.
        data: Keyword arguments of ``DataTrainingArguments``.
        fatal_events: At which event each process is killed; the one after them is not.

    Returns:
        How many were killed.
    """
    for n_killed, fatal in enumerate([*fatal_events, None]):
        status = in_a_process(do_run, str(directory), model, data, fatal, None)
        if status == 0:
            return n_killed
        assert status == -signal.SIGKILL, status
    raise AssertionError("the last process did not finish")


def n_events(directory: Path, model: dict[str, Any], data: dict[str, Any]) -> int:
    """Do a run to its end. Returns how many events there were."""
    count = directory / "events"
    status = in_a_process(do_run, str(directory), model, data, None, str(count))
    if status:
        log = os.environ.get("CRASHING_LOG")
        raise AssertionError(f"exit status {status} {Path(log).read_text()[-3000:] if log else ''}")
    n = int(count.read_text())
    count.unlink()
    return n


OF_NO_MATTER = (b"output_dir:", b"checkpoint_every:", b"save_tmp_test_files:")
"""Arguments that may differ between runs that are compared."""


def difference(one: Path, other: Path) -> list[str]:
    """What is not the same to the byte in the output directories of two runs.

    ``run.json``, which has times, is left out.
    """
    names = {
        str(path.relative_to(place))
        for place in (one, other)
        for path in place.rglob("*")
        if path.is_file() and path.name != "run.json"
    }
    return [name for name in sorted(names) if _content(one / name) != _content(other / name)]


def _content(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    content = path.read_bytes()
    if path.name in ("config.txt", "config.yaml"):
        lines = content.splitlines()
        return b"".join(line for line in lines if not line.strip().startswith(OF_NO_MATTER))
    return content
