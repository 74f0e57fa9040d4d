"""Files and directories that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file or directory aside and put it in its place when it is finished.

    Args:
        path: Its place.
        shared: Whether other processes may be writing the same file. One of them then is the last.

    Yields:
        Where to write: beside ``path``, where nothing is yet.
    """
    mine = f".{socket.gethostname()}.{os.getpid()}" if shared else ""
    aside = path.with_name(f".{path.name}{mine}.tmp")
    try:
        _remove(aside)
        yield aside
        if aside.is_dir():
            # A directory is not replaced by renaming unless it is empty.
            _remove(path)
        aside.replace(path)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
