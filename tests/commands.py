"""Command lines in processes of their own that have torch and the rest loaded already.

To import them takes a process four seconds, far more than most command lines of the tests take. So
one server for each process of pytest imports them, has no threads, and forks for each command line.
What comes of that has its own arguments, environment, directory, standard streams, exit status and
signals, and imports what the tests bring as ``python -m finetune_lm`` would.

Only what a process does on the way there can be seen in none of these: which modules it imports,
and when. That is for ``subprocess``, which each thing that the program does has in one test.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import finetune_lm
from undrawn import leave_undrawn

_PRELOADED = [
    *("torch", "accelerate", "datasets", "matplotlib.backends.backend_pdf"),
    *(f"transformers.models.{kind}.modeling_{kind}" for kind in ("gpt2", "bert", "t5", "auto")),
    *("transformers.models.auto.tokenization_auto", "transformers.tokenization_utils_tokenizers"),
    *("finetune_lm.cli", "finetune_lm.resuming", "finetune_lm.training.loop"),
    *(
        "finetune_lm.training.start",
        "finetune_lm.evaluation.testing",
        "finetune_lm.recording.curves",
    ),
    *(
        "finetune_lm.loss_classes",
        "finetune_lm.data.feeding",
        "finetune_lm.scoring.fast.output_layer",
    ),
    # For studies; no pyplot, before which a program may choose how to draw.
    *("finetune_lm.study.search", "sqlalchemy.dialects.sqlite", "optuna.storages._rdb"),
    *("optuna._gp.gp", "optuna.visualization", "plotly.graph_objects", "plotly.io"),
]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(_PRELOADED)


def wait_for_no_disk() -> None:
    """Let `os.fsync` return at once: what a killed process has written is there without it.

    A run waits some forty times for the disk. Only where power fails does it matter.
    """
    os.fsync = lambda handle: None  # type: ignore[assignment]


def prepare() -> None:
    """Make a process that was just forked ready."""
    import numpy as np
    from tqdm import tqdm

    # The one it has is shared with the others, and one that is killed may hold it for ever.
    tqdm.set_lock(threading.RLock())
    # Otherwise all would draw the same where nobody has set a seed.
    np.random.seed()
    # What is there for good takes long to look through.
    gc.freeze()
    wait_for_no_disk()
    leave_undrawn()


class Command:
    """``python -m finetune_lm`` with these arguments, begun in such a process.

    Its methods are those of ``subprocess.Popen``.

    Args:
        *argv: The arguments; each is made text.
        cwd: Where it is started.
        merged: Whether stderr goes where stdout goes.
        input: What stands ready on standard input, which is a pipe then; otherwise nothing is.
        environment: Variables that it has beside those of this process.
        without: Functions that do nothing in it, ``module:function`` each.
        host: What the machine is called that it finds itself on, if not as this one is.
    """

    def __init__(
        self,
        *argv: Any,
        cwd: Path,
        merged: bool = False,
        input: str | None = None,
        environment: dict[str, str] | None = None,
        without: Sequence[str] = (),
        host: str = "",
    ) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(1 if merged else 2)]  # noqa: SIM115
        streams = [_Inherited(file.fileno()) for file in (self._files[0], self._files[-1])]
        variables = _variables(environment or {})
        args = (list(map(str, argv)), str(cwd), variables, _usual_path(), input, streams)
        self._process: Any = context.Process(target=_be_command, args=(*args, without, host))
        self._process.start()
        self.pid: int = self._process.pid
        _running.add(self)

    @property
    def sentinel(self) -> int:
        """What can be waited for together with other things, as ``multiprocessing`` has it."""
        sentinel: int = self._process.sentinel
        return sentinel

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal that killed it, or None while it lives."""
        return self._process.exitcode

    poll = returncode.fget

    def wait(self) -> int:
        """Wait for its end. Returns its exit status."""
        self._process.join()
        _running.discard(self)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """Wait for its end. Returns what it has written to stdout and to stderr."""
        self.wait()
        written = [os.pread(file.fileno(), 2**30, 0).decode() for file in self._files]
        return written[0], written[1] if len(written) == 2 else ""


_running: set[Command] = set()


@atexit.register
def _kill_what_is_left() -> None:
    for command in _running:
        command.kill()


def run_command(*argv: Any, cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Do what ``Command`` does, to its end."""
    command = Command(*argv, cwd=cwd, **kwargs)
    stdout, stderr = command.communicate()
    return subprocess.CompletedProcess(list(argv), command.wait(), stdout, stderr)


def run_new_process(*argv: Any, cwd: Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """The same in a process that begins with nothing, as a user's does."""
    return subprocess.run(
        [sys.executable, "-m", "finetune_lm", *map(str, argv)],
        cwd=cwd,
        env=_variables({}),
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )


def _variables(more: dict[str, str]) -> dict[str, str]:
    """The environment of a command, which finds the package that is tested here."""
    variables = {**os.environ, **more}
    source = str(Path(finetune_lm.__file__).parent.parent)
    places = [variables["PYTHONPATH"], source] if "PYTHONPATH" in variables else [source]
    return {**variables, "PYTHONPATH": os.pathsep.join(places)}


@functools.cache
def _usual_path() -> list[str]:
    """Where a Python without arguments and variables looks for modules."""
    program = "import json, sys; print(json.dumps(sys.path))"
    shown = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(shown.stdout)


class _Inherited:
    """A file descriptor of the process that forks, on its way to the one that is forked."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> Any:
        return _inherit, (reduction.DupFd(self._number),)


def _inherit(descriptor: Any) -> int:
    return descriptor.detach()


def _be_command(
    argv: list[str],
    cwd: str,
    variables: dict[str, str],
    usual_path: list[str],
    input: str | None,
    streams: list[int],
    without: Sequence[str],
    host: str,
) -> None:
    """Become the command: what Python does before and after a program, and the program."""
    if input is None:
        ready = os.open(os.devnull, os.O_RDONLY)
    else:
        ready, writable = os.pipe()
        os.write(writable, input.encode())
        os.close(writable)
    for number, stream in enumerate([ready, *streams]):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    given = variables["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = list(dict.fromkeys([cwd, *given, *usual_path]))
    sys.argv[:] = ["-m", *argv]
    multiprocessing.set_start_method(None, force=True)
    prepare()
    if host:
        _enter_machine(host)
    for name in without:
        module, _, function = name.partition(":")
        setattr(importlib.import_module(module), function, lambda *_, **__: None)
    os._exit(_run_to_the_end())


def _enter_machine(name: str) -> None:
    """Give this process a machine's name of its own. Needs root, on Linux."""
    clone_newuts = 0x04000000
    if ctypes.CDLL(None).unshare(clone_newuts):
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(name)


def _run_to_the_end() -> int:
    """Run the program and do what Python does after it. Returns the exit status."""
    status = 0
    try:
        runpy.run_module("finetune_lm", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status
