"""What has been evaluated of a test set, kept aside so that a killed evaluation goes on."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetune_lm.runs.requeueing import something_is_kept


class EvaluationProgress:
    """The rows of a test set's batches so far, in a temporary ``.json.gz`` file.

    The first line says what they are of, and each further line, a gzip member of its own, holds one
    batch. A file that is of something else, or whose end was cut off, is used as far as it holds.

    Args:
        path: The file.
        identity: Everything that the rows depend on.
    """

    def __init__(self, path: Path, identity: Any) -> None:
        self._path = path
        text = json.dumps(identity, sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def finished_batches(self) -> list[pa.Table]:
        """The rows of each batch that an earlier, same evaluation has finished."""
        lines = self._whole_lines()
        if not lines or lines[0].get("key") != self._key:
            self._path.unlink(missing_ok=True)
            return []
        tables = [_table(line) for line in lines[1:]]
        # Written again, so that a member that was cut off does not stand in the way of the next.
        self._path.unlink()
        for table in tables:
            self._write(table)
        return tables

    def add(self, rows: pa.Table) -> None:
        """Keep the rows of the next batch."""
        self._write(rows)
        something_is_kept()

    def _write(self, rows: pa.Table) -> None:
        with self._path.open("ab") as file:
            if file.tell() == 0:
                file.write(_member({"key": self._key}))
            file.write(_member({"schema": _schema_text(rows), "columns": rows.to_pydict()}))

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def _whole_lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        try:
            with gzip.open(self._path, "rb") as file:
                lines.extend(json.loads(line) for line in file)
        except FileNotFoundError:
            return []
        except (OSError, EOFError, ValueError, zlib.error):
            pass  # what was read up to here is whole
        return lines


def _member(value: dict[str, Any]) -> bytes:
    return gzip.compress((json.dumps(value) + "\n").encode("utf-8"), compresslevel=1, mtime=0)


def _schema_text(rows: pa.Table) -> str:
    return base64.b64encode(rows.schema.serialize().to_pybytes()).decode("ascii")


def _table(line: dict[str, Any]) -> pa.Table:
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(line["schema"])))
    return pa.Table.from_pydict(line["columns"], schema=schema)
