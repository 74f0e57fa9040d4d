"""The tables of all checkpoints, one behind the other, with what each checkpoint is as columns."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from finetune_lm.recording.csv_cells import MISSING
from finetune_lm.recording.table_text import read_row
from finetune_lm.series.members import Member
from finetune_lm.whole_files import write_whole

COLUMNS = ("revision", "step", "tokens_seen")
_BEHIND = "n_params"
_ENDINGS = ("test_results.csv.gz", "test_words.csv.gz", "test_pairs.csv.gz", "test_summary.csv")


def merge_tables(members: Sequence[tuple[Member, Path]], directory: Path) -> list[Path]:
    """Write the tables of checkpoints as one each, a line at a time.

    Args:
        members: The checkpoints, and the directories with their tables.
        directory: Where the tables go.

    Returns:
        Their paths.

    Raises:
        ValueError: If the table of one has other columns than that of another.
    """
    written = []
    for ending in _ENDINGS:
        parts = [(member, path) for member, place in members for path in place.glob(f"*-{ending}")]
        if parts:
            target = directory / parts[0][1].name
            with write_whole(target) as aside, _writing(aside, target) as out:
                _merge(parts, out)
            written.append(target)
    return written


def _merge(parts: Sequence[tuple[Member, Path]], out: IO[bytes]) -> None:
    header = None
    for member, path in parts:
        with _reading(path) as table:
            own = read_row(table)
            if header is None:
                header = own
                out.write(_with(own, own, ",".join(f'"{name}"' for name in COLUMNS)))
            elif own != header:
                raise ValueError(f"{path} must have the columns of {parts[0][1]} but has others.")
            values = _values(member)
            while row := read_row(table):
                out.write(_with(row, header, values))


def _values(member: Member) -> str:
    progress = member.progress
    numbers = (progress.step, progress.tokens_seen)
    revision = member.revision.replace('"', '""')
    return ",".join(
        [f'"{revision}"', *(MISSING if value is None else str(value) for value in numbers)]
    )


def _with(row: bytes, header: bytes, values: str) -> bytes:
    """A row with values behind the model's, or in front."""
    names = [json.loads(name) for name in header.decode().rstrip("\n").split(",")]
    place = _end_of_field(row, names.index(_BEHIND) + 1) if _BEHIND in names else 0
    return row[:place] + values.encode() + b"," + row[place:]


def _end_of_field(row: bytes, number: int) -> int:
    """Where the field behind so many others begins."""
    place, quoted = 0, False
    while number:
        character = row[place : place + 1]
        if character == b'"':
            quoted = not quoted
        elif character == b"," and not quoted:
            number -= 1
        place += 1
    return place


def _reading(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def _writing(path: Path, name: Path) -> IO[bytes]:
    if name.suffix == ".gz":
        # Without the time and the name, the same rows are the same file.
        return gzip.GzipFile("", "wb", fileobj=path.open("wb"), mtime=0)  # type: ignore[return-value]
    return path.open("wb")
