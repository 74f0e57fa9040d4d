"""Lines of a file, gzipped or not, and the JSON objects on them."""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from finetune_lm.data.json_lines import read_object
from finetune_lm.errors import UserError

LONGEST_LINE = 2**26
"""Of a line, in bytes. What is longer is no text, and reading on might fill the memory."""


def read_lines(path: str) -> Iterator[str]:
    """Lines of a text file, gzipped if so named, without their line ends.

    Only a line feed ends a line: other characters that Unicode counts as line ends may stand in a
    text. A carriage return before it is Windows' line end and goes with it. So does a byte-order
    mark, which files that were put together have in their middle too.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not os.path.isdir(path):  # noqa: PTH112, PTH116
            # Opening a pipe may wait for ever, and a device may never end.
            raise UserError(f"{path} must be a file but is a pipe or a device.")
        with Path(path).open("rb") as raw, contextlib.ExitStack() as stack:
            file: IO[bytes] = raw
            if path.endswith(".gz"):
                if raw.peek(2)[:2] not in (b"\x1f\x8b", b""):
                    raise UserError(f"a file named .gz must be gzipped but {path} is not.")
                file = cast("IO[bytes]", stack.enter_context(gzip.open(raw)))
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{path}, line {number}: must be a line of text but is longer than "
                        f"{LONGEST_LINE // 2**20} MB."
                    )
                try:
                    text = line.decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: must be UTF-8 but is not ({error.reason} at byte "
                        f"{error.start + 1})."
                    ) from None
                yield text.removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise UserError(f"{path} must be a file but is a directory.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None


def read_objects(path: str) -> Iterator[dict[str, Any]]:
    """The JSON object on each line of a file, read strictly.

    Raises:
        UserError: If the file cannot be read, or a line is none.
    """
    for number, line in enumerate(read_lines(path), start=1):
        yield read_object(line, f"{path}, line {number}")
