"""Bad input: what is said of it, each case once, through the command line.

Every case ends with status 2 and exactly the lines it names, without a traceback, before a model is
loaded, and leaves nothing behind. The cases are in `bad_data.py` and `bad_arguments.py`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from bad_arguments import ARGUMENTS, CONFIG_FILES
from bad_data import DATA_FILES, JSON_FILES, METADATA
from bad_input import BASE, GOOD, TEST, both, file, raw
from finetune_lm.cli import main

TABLE = {
    f"{kind}: {name}": case
    for kind, table in (
        ("data", DATA_FILES),
        ("data", JSON_FILES),
        ("metadata", METADATA),
        ("config", CONFIG_FILES),
        ("arguments", ARGUMENTS),
    )
    for name, case in table.items()
}


def tree() -> dict[str, Any]:
    """Everything in the current directory, with the content of files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_model_is_loaded(monkeypatch):
    def fail(*_):
        pytest.exit("a model was looked for")

    monkeypatch.setattr("finetune_lm.models.loading.identify", fail)


@pytest.mark.usefixtures("no_model_is_loaded")
@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_told_in_a_line(name, capsys):
    case = TABLE[name]
    case.make()
    before = tree()
    assert main([*BASE, *case.argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [f"finetune-lm: error: {line}" for line in case.said]
    assert tree() == before


TOLD_AT_ONCE = """
import json, os, sys
from finetune_lm.cli import main
for directory, argv in json.loads(sys.argv[1]):
    os.chdir(directory)
    print(directory, main(argv), file=sys.stderr)
    assert not {"transformers", "datasets", "optuna"} & set(sys.modules), directory
"""


def test_bad_input_is_told_before_anything_slow_is_imported(tmp_path):
    """As a person meets it: in a process that has nothing yet, without standard input."""
    cases = [
        TABLE[name]
        for name in (
            *("data: JSON: no JSON", "data: a pipe", "metadata: too few lines"),
            *("config: a call of Python", "arguments: no UTF-8"),
            "arguments: an output directory of another run",
        )
    ]
    expected, given = [], []
    for number, case in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        os.chdir(directory)
        case.make()
        expected += [f"finetune-lm: error: {line}" for line in case.said] + [f"{directory} 2"]
        given.append((str(directory), [*BASE, *case.argv]))
    os.chdir(tmp_path)
    before = tree()
    result = subprocess.run(
        [sys.executable, "-c", TOLD_AT_ONCE, json.dumps(given)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = result.stderr.decode().splitlines()
    assert said == expected
    assert result.returncode == 0
    assert result.stdout == b""
    assert tree() == before


def test_debug_shows_where_it_was_found(capsys):
    TABLE["data: no UTF-8"].make()
    assert main([*BASE, *TABLE["data: no UTF-8"].argv, "--debug"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.splitlines()[-1] == f"finetune-lm: error: {TABLE['data: no UTF-8'].said[0]}"


# What can be seen only with a tokenizer or a model's configuration.
WITH_A_MODEL = {
    "a label too few for a masked model": (
        file("x.json", '{"text": "The [MASK] [MASK] slept.", "labels": "The man slept."}\n'),
        ["--model_name_or_path", "tiny-mlm", "--test_file", "x.json"],
        "x.json, line 1: a masked language model needs a label for each token, but 'text' has 7 "
        "tokens and 'labels' has 6.",
    ),
    "no such model": (
        file("x.txt", GOOD),
        ["--model_name_or_path", "./nothing", "--test_file", "x.txt"],
        "model_name_or_path './nothing' is not there: there is no such directory.",
    ),
    "a model of no known kind": (
        both(
            file("x.txt", GOOD),
            lambda: Path("vit").mkdir(),
            file("vit/config.json", '{"model_type": "vit"}'),
        ),
        ["--model_name_or_path", "./vit", "--test_file", "x.txt"],
        "model_task must be given for './vit': its config (model_type 'vit', architectures None) "
        "is of no kind known here. Give --model_task lm or mlm or mntp or seq2seq or lm+mlm.",
    ),
    "an empty directory for a model": (
        both(file("x.txt", GOOD), lambda: Path("empty").mkdir()),
        ["--model_name_or_path", "./empty", "--test_file", "x.txt"],
        "model_name_or_path './empty' is a directory that cannot be loaded as configuration: "
        "Unrecognized model in ./empty. Should have a `model_type` key in its config.json.",
    ),
    "no room for the text": (
        file("x.txt", GOOD),
        [*BASE, "--test_file", "x.txt", "--max_length", "1"],
        "max_length must leave room for the text but is 1, and 1 start and end tokens are put "
        "around it.",
    ),
}


@pytest.mark.parametrize("name", WITH_A_MODEL)
def test_what_only_a_model_shows_is_told_in_a_line(name, capsys):
    make, argv, said = WITH_A_MODEL[name]
    make()
    before = tree()
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == f"finetune-lm: error: {said}"
    assert "Traceback" not in captured.err
    assert tree() == before


@pytest.mark.usefixtures("no_model_is_loaded")
@pytest.mark.parametrize(
    ("name", "line", "last", "said"),
    [
        ("x.txt.gz", GOOD[:37], "", "x.txt.gz, line 100000: must not be blank. Take blank lines "
         "out of the file."),
        ("x.json.gz", '{"text": "The man has always broken the glass."}\n', "{",
         "x.json.gz, line 100000: must be JSON but is not (Expecting property name enclosed in "
         "double quotes at character 2)."),
    ],
)  # fmt: skip
def test_a_bad_line_behind_99_999_good_ones(name, line, last, said, capsys):
    file(name, line * 99_999 + f"{last}\n")()
    tracemalloc.start()
    try:
        assert main([*BASE, *TEST, name]) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert capsys.readouterr().err == f"finetune-lm: error: {said}\n"
    # The lines themselves, and not one of them for each step that they go through.
    assert peak < 5 * len(line) * 100_000 + 2**24


@pytest.mark.usefixtures("no_model_is_loaded")
def test_metadata_with_a_bad_line_behind_99_999_good_ones(capsys):
    file("x.txt.gz", "The women drank.\n" * 100_000)()
    file("x_metadata.jsonl.gz", '{"item": 1, "kind": "a"}\n' * 99_999 + "{]\n")()
    assert main([*BASE, *TEST, "x.txt.gz"]) == 2
    assert capsys.readouterr().err == (
        "finetune-lm: error: x_metadata.jsonl.gz, line 100000: must be JSON but is not (Expecting "
        "property name enclosed in double quotes at character 2).\n"
    )


@pytest.mark.usefixtures("no_model_is_loaded")
def test_a_line_without_end_is_not_read_to_its_end(capsys):
    """A gigabyte of one letter is a megabyte gzipped."""
    packed = io.BytesIO()
    with gzip.open(packed, "wb", compresslevel=1) as opened:
        for _ in range(2**10):
            opened.write(b"x" * 2**20)
    raw("x.txt.gz", packed.getvalue())()
    tracemalloc.start()
    try:
        assert main([*BASE, *TEST, "x.txt.gz"]) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert capsys.readouterr().err == (
        "finetune-lm: error: x.txt.gz, line 1: must be a line of text but is longer than 64 MB.\n"
    )
    assert peak < 2**28


@pytest.mark.usefixtures("no_model_is_loaded")
def test_a_file_of_data_for_a_config_file_is_told_in_few_lines(capsys):
    """Names that do not exist by the thousand: a person reads the first of them."""
    file("run.yaml", "".join(f"word_{n}: 1\n" for n in range(3000)))()
    assert main([*BASE, *TEST, "x.txt", "--config", "run.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 51
    assert lines[0] == "finetune-lm: error: run.yaml, line 1: --word_0 is not an argument."
    assert lines[-1] == "finetune-lm: and 2950 more errors."


def test_the_same_is_said_from_python(tmp_path):
    """A Python user gets an exception with the same lines."""
    from finetune_lm import DataTrainingArguments, ModelArguments, UserError, run

    for name in ("data: JSON: no JSON", "metadata: too few lines", "data: a pipe"):
        case = TABLE[name]
        directory = tmp_path / name.replace(": ", "-")
        directory.mkdir()
        os.chdir(directory)
        case.make()
        with pytest.raises(UserError) as caught:
            run(ModelArguments("tiny-lm"), DataTrainingArguments(test_file=case.argv[1:]))
        assert list(caught.value.problems) == case.said


@pytest.mark.parametrize("value", ["\ud83d", {"a": ["\ud83d"]}, {"a\udc00": 1}])
def test_half_a_character_from_python(value):
    from finetune_lm import ModelArguments, UserError

    name = "model_kwargs" if isinstance(value, dict) else "model_name_or_path"
    values: dict[str, Any] = {"model_name_or_path": "tiny-lm", name: value}
    with pytest.raises(UserError, match=f"{name} must be text that UTF-8 can hold"):
        ModelArguments(**values)


def test_a_value_that_contains_itself_from_python():
    from finetune_lm import ModelArguments, UserError

    endless: dict[str, Any] = {}
    endless["a"] = [endless]
    with pytest.raises(UserError, match="model_kwargs has more than 50 lists or dictionaries"):
        ModelArguments("tiny-lm", model_kwargs=endless)


def test_the_table_is_documented():
    """docs/data.md shows what is said of a file; each line of its table is one that is said."""
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    table = text.split("## Errors in data files")[1]
    said = [line for case in TABLE.values() for line in case.said]
    shown = [line.split("| `")[1].rsplit("` |")[0] for line in table.splitlines() if "| `" in line]
    assert len(shown) > 10
    for message in shown:
        beginning, dots, _ = message.partition("...")
        assert any(line.startswith(beginning) if dots else line == message for line in said), (
            message
        )
