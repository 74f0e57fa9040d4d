"""Files and directories that are written whole or not at all, and seen safely on disk."""

from __future__ import annotations

import json
import os
import shutil
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

_CHECKSUM = "checksum"


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
        for each in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
            sync(each)
        if aside.is_dir():
            # A directory is not replaced by renaming unless it is empty.
            _remove(path)
        aside.replace(path)
        sync(path.parent)
    finally:
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """See a file, or the names in a directory, safely on disk.

    Raises:
        OSError: If a file cannot be. Not every system can be asked to do so with a directory.
    """
    with suppress(OSError) if path.is_dir() else nullcontext():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checksums(directory: Path, *names: str) -> dict[str, dict[str, int]]:
    """The length and the CRC-32 of files, also of those in directories, as far as they are there.

    Args:
        directory: Where they are.
        *names: Files and directories in it.
    """
    found = [directory / name for name in names]
    files = [
        file
        for path in found
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    ]
    return {file.relative_to(directory).as_posix(): checksum(file) for file in files}


def checksum(path: Path) -> dict[str, int]:
    """The length and the CRC-32 of a file."""
    crc32, n_bytes = 0, 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc32 = zlib.crc32(block, crc32)
            n_bytes += len(block)
    return {"bytes": n_bytes, "crc32": crc32}


def sealed(values: Mapping[str, Any]) -> str:
    """JSON with a checksum in it, from which `unsealed` tells whether it is as it was written."""
    plain = json.loads(json.dumps(values, default=str))
    return json.dumps({**plain, _CHECKSUM: _seal(plain)}, indent=2) + "\n"


def unsealed(path: Path) -> dict[str, Any]:
    """What `sealed` was given.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not as it was written, in words that follow on its name.
    """
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or values.pop(_CHECKSUM, None) != _seal(values):
        raise ValueError("is damaged: it is not as it was written")
    return values


def _seal(plain: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())
