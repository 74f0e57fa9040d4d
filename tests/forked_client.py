"""Stands for ``python -m finetune_lm`` where a script starts that; see forked_programs.py.

python forked_client.py SOCKET ARGUMENTS ...
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGCONT)


def main(address: str, argv: list[str]) -> int:
    """Have the program run elsewhere, and be what it is: its signals, output and exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        asked = {"argv": argv, "cwd": str(Path.cwd()), "environment": dict(os.environ)}
        server.sendall(json.dumps(asked).encode() + b"\n")
        answers = server.makefile(encoding="utf-8")
        pid = int(answers.readline())
        for number in _PASSED_ON:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        ended = json.loads(answers.readline())
    sys.stdout.write(ended["output"])
    sys.stdout.flush()
    status: int = ended["status"]
    if status < 0:
        if -status in _PASSED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
