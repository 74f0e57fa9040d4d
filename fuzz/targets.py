"""What is fed with anything: each takes bytes, and may end in no exception but `UserError`.

`run.py` runs them under atheris, which looks for bytes that take new ways through the code;
`tests/test_fuzz_targets.py` runs them with bytes that are likely to matter.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import os
import sys
import tempfile
import types
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from finetune_lm.arguments import (
    ParsedArguments,
    config_dict,
    config_text,
    config_yaml,
    parse_arguments,
    references,
)
from finetune_lm.arguments.command_line import argument_names
from finetune_lm.data.examples import JSON_SUFFIXES, TEXT_SUFFIXES, file_hashes
from finetune_lm.data.reading_examples import read_examples
from finetune_lm.errors import UserError
from finetune_lm.recording.columns import MetadataColumns

BASE = ["--model_name_or_path", "tiny-lm", "--test_file", "test.txt.gz"]
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES)

# Importing any module whatever is no harmless thing to do by the thousand.
_MODULES = {"collections", "finetune_lm", "json", "math", "os", "torch"}

csv.field_size_limit(2**31 - 1)


def command_line(data: bytes) -> None:
    """Parse a command line: words with a NUL between them, as the system has them."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    with _in_an_empty_directory(), suppress(UserError):
        _check_round_trip(parse_arguments([*(BASE if _some(data) else ()), *words]), data)


def config_file(data: bytes) -> None:
    """Read a config file."""
    with _in_an_empty_directory(), suppress(UserError):
        Path("run.yaml").write_bytes(data)
        _check_round_trip(parse_arguments([*BASE, "--config", "run.yaml"]), data)


def data_file(data: bytes) -> None:
    """Read a data file. The first byte says what its name is and whether it is compressed."""
    kind, content = data[:1], data[1:]
    name = f"x{SUFFIXES[(kind[0] if kind else 0) % len(SUFFIXES)]}"
    if name.endswith(".gz") and kind and kind[0] < 128:
        content = gzip.compress(content, 1, mtime=0)
    with _in_an_empty_directory(), suppress(UserError):
        Path(name).write_bytes(content)
        examples = read_examples(name)
        assert examples.texts
        assert all(text.strip() and text.encode() for text in examples.texts)
        assert examples.labels is None or len(examples.labels) == len(examples)
        assert len(examples.metadata) == len(examples)
        assert file_hashes({"test": [examples]})


def metadata_file(data: bytes) -> None:
    """Read metadata for as many lines as they have, and write their columns and read them back."""
    n_lines = data.removesuffix(b"\n").count(b"\n") + 1
    with _in_an_empty_directory(), suppress(UserError):
        Path("x.txt").write_text("a\n" * n_lines)
        Path("x_metadata.json").write_bytes(data)
        examples = read_examples("x.txt")
        columns = MetadataColumns.of_files([examples], others=["MyLoss"])
        arrays = {
            name: columns.array(name, [values.get(name) for values in examples.metadata])
            for name in (*columns.names, "item")
        }
        _check_readable(pa.table(arrays))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "command_line": command_line,
    "config_file": config_file,
    "data_file": data_file,
    "metadata_file": metadata_file,
}


def _some(data: bytes) -> bool:
    """Whether these are among seven of eight inputs, the same each time."""
    return zlib.crc32(data) % 8 > 0


def _check_round_trip(parsed: ParsedArguments, data: bytes) -> None:
    """See, for some inputs, that what a run would put on record reads back as the same.

    Finding the names of all classes and functions takes twenty times as long as parsing them.
    """
    if parsed.model is None or parsed.data is None or parsed.optimization is None:
        return
    if _some(data[::-1]):
        return
    everything = (parsed.model, parsed.data, parsed.optimization)
    assert config_text(*everything).encode()
    assert repr(everything).encode()
    written = config_yaml(*everything)
    Path("again.yaml").write_text(written, encoding="utf-8")
    again = parse_arguments(["--config", "again.yaml"])
    assert again.model is not None
    assert again.data is not None
    assert again.optimization is not None
    assert repr(config_dict(again.model, again.data, again.optimization)) == repr(
        config_dict(*everything)
    ), written


def _check_readable(table: pa.Table) -> None:
    """See that a reader that knows nothing of the program finds as many rows and columns."""
    written = io.BytesIO()
    pyarrow.csv.write_csv(table, written, pyarrow.csv.WriteOptions(null_string="NA"))
    text = written.getvalue().decode()
    header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert header == table.column_names
    assert len(rows) == len(table)
    assert all(len(row) == len(header) for row in rows)


@contextmanager
def _in_an_empty_directory() -> Iterator[None]:
    before = Path.cwd()
    # In memory, where there is such a place.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        os.chdir(directory)
        path = list(sys.path)
        try:
            yield
        finally:
            sys.path[:] = path
            os.chdir(before)


@contextmanager
def few_imports() -> Iterator[None]:
    """Let dotted names on the command line lead to a few modules only."""

    def import_module(name: str) -> types.ModuleType:
        if name.split(".", maxsplit=1)[0] not in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    before = references.importlib
    names = {**vars(importlib), "import_module": import_module}
    references.importlib = types.SimpleNamespace(**names)  # type: ignore
    try:
        yield
    finally:
        references.importlib = before


def _words(*words: str) -> bytes:
    return b"\0".join(word.encode() for word in words)


SEEDS: dict[str, list[bytes]] = {
    "command_line": [
        _words("--epochs", "3", "--use_gpu", "--train_optimizer_kwargs.lr", "1e-4"),
        _words("--loss_classes.train", "loss_classes.OutputsDefaultLoss", "--seed=1"),
        _words("--model_kwargs", 'json:{"a": [1, null, {"b": 1.5}]}', "--params.lr.values", "1"),
        _words("--train_optimizer_kwargs.weight_decay", "__delete_field__", "--x", "callable:sum"),
        _words("--model_kwargs.x", "'3'", '"a.b"', "[]", "{}", "None", "-1e-3", "import:math"),
        _words("--config", "a.yaml", "--preview", "3", "--help", "--version", "--debug"),
        _words("--study_kwargs.storage", "postgresql://me:secret@host/db", "--token", "x"),
        _words("--data_preprocessing_fn.train", "data_preprocessing.mask_random_tokens"),
    ],
    "config_file": [
        b"epochs: 3\nuse_gpu: true\nmodel_kwargs: {a: [1, .nan, ~, 'x'], b.c: 2}\n",
        b"%YAML 1.1\n--- # x\n? seed\n: !!int '3'\nparams:\n  lr: &a {values: [1e-5, 1]}\n",
        b'model_kwargs:\n  x: "\\u00e9\\x41\\ud83d"\n  y: |\n    a\n    b\n  z: >-\n    c\n',
        b"train_optimizer: torch.optim.SGD\ntrain_optimizer_kwargs: {lr: __delete_field__}\n",
        b"seed: !!python/object/apply:os.system [x]\n",
        b"model_kwargs: &a {b: *a}\n",
    ],
    "data_file": [
        *(bytes([kind]) + b"One two.\nThree.\r\n" for kind in range(2)),
        *(
            bytes([kind]) + b'\xef\xbb\xbf{"text": "a", "labels": "\\u00e9"}\n{"text": "b"}\n'
            for kind in range(2, 6)
        ),
        bytes([128]) + gzip.compress(b"One.\n", mtime=0) + gzip.compress(b"Two.\n", mtime=0),
        bytes([130]) + gzip.compress(b'{"text": "a"}\n', mtime=0)[:-6],
    ],
    "metadata_file": [
        b'{"item": 1, "kind": "a", "x": [1, {"y": null}], "z": 1.5e3, "w": true}\n{}\n',
        b'{"item": "a", "big": 123456789012345678901234567890}\n{"k": -0.0, "big": 1}',
        b'{"surprisal": 1}\n',
        b'{"a": NaN, "b": 1e999, "c": "\\ud83d\\ude00"}\n',
    ],
}
"""What each begins with."""


def dictionary() -> list[bytes]:
    """Words that mean something to one of them."""
    words = [f"--{name}" for name in argument_names()]
    words += argument_names()
    words += ["--config", "--help", "--preview", "--print_config", "--version", "--debug", "--"]
    words += ["json:", "import:", "callable:", "__delete_field__", "True", "False", "None", "nan"]
    words += ["torch.sum", "math.pi", "callable:int", "a.b", "'", '"', "{}", "[]", "\0", "=", "."]
    words += ["!!python/name:", "!!str", "&a", "*a", "<<", "? ", "- ", "%YAML 1.1", "---"]
    words += ["\\U00110000", "\\x41", "\\u00e9"]
    words += ['{"text": "', '"labels": "', "\\ud83d", "\\u0000", "NaN", "-Infinity", "1e999"]
    words += ["\r\n", "\ufeff", "://", "@", "hf_", "\x1f\x8b\x08", "\u2028", "\x85", "\udc80"]
    return [word.encode("utf-8", "surrogateescape") for word in words]
