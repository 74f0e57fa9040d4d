"""``python -m finetune_lm`` as others start it, without the four seconds of its imports.

A script of a cluster or a launcher starts a small program instead, which has `Command` fork a
process that has all imported. Signals, output and exit status are passed on; whoever is killed
takes the other with it.
"""

from __future__ import annotations

import json
import shlex
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Self

from commands import Command
from finetune_lm.slurm.batch_script import PROGRAM

_CLIENT = Path(__file__).with_name("forked_client.py")


class ForkedPrograms:
    """Forks them as long as it is entered.

    Args:
        without: Functions that do nothing in them, ``module:function`` each.
    """

    def __init__(self, without: Sequence[str] = ()) -> None:
        self._without = without
        self._directory = tempfile.TemporaryDirectory(prefix="finetune_lm_forked_")
        self._address = str(Path(self._directory.name, "socket"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._started: list[tuple[str | None, Command]] = []

    @property
    def _words(self) -> tuple[str, str]:
        """The program in a script, and the small program in its place."""
        client = [sys.executable, "-S", "-E", str(_CLIENT), self._address]
        return shlex.join(PROGRAM), shlex.join(client)

    def in_script(self, script: str) -> str:
        """A script with the small program in it."""
        program, client = self._words
        assert program in script
        return script.replace(program, client)

    def as_filter(self, command: str) -> str:
        """A script that hands another script on to a command, with the small program in it."""
        program, client = self._words
        return f'#!/bin/sh\nsed "s|{program}|{client}|" | {command} "$@"\n'

    def as_python(self, place: Path) -> str:
        """A program at a place that stands for Python where ``-u -m finetune_lm`` is behind it."""
        place.write_text(f'#!/bin/sh\nshift 3\nexec {self._words[1]} "$@"\n')
        place.chmod(0o755)
        return str(place)

    def of_task(self, task: int) -> Command:
        """The program of a task of an array that was started last."""
        return [command for number, command in self._started if number == str(task)][-1]

    def __enter__(self) -> Self:
        self._listener.bind(self._address)
        self._listener.listen()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for _, command in self._started:
            command.kill()
            command.wait()
        self._directory.cleanup()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # Where the client is gone nobody hears how it ended.
        with suppress(OSError), client, client.makefile("rw", encoding="utf-8") as stream:
            asked = json.loads(stream.readline())
            variables = asked["environment"]
            task = variables.get("SLURM_ARRAY_TASK_ID")
            command = Command(
                *asked["argv"],
                cwd=Path(asked["cwd"]),
                merged=True,
                environment=variables,
                without=self._without,
                # Of a cluster with a node for each task of an array.
                host=f"node{task}" if task else "",
            )
            self._started.append((task, command))
            print(command.pid, file=stream, flush=True)
            connection.wait([command.sentinel, client])
            # What is not over by now has lost its client.
            command.kill()
            output, _ = command.communicate()
            ended = json.dumps({"status": command.returncode, "output": output})
            print(ended, file=stream, flush=True)
