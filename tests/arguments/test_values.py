from __future__ import annotations

import json
import math
import os.path
from typing import Any

import pytest
from hypothesis import given

from finetune_lm.arguments.nested import DELETE_FIELD
from finetune_lm.arguments.references import Reference
from finetune_lm.arguments.values import read_text, read_value, write_value
from finetune_lm.errors import UserError
from raw_texts import TEXTS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # quotes keep a text a text, and only the outermost pair goes
        ('"3"', "3"),
        ("'3'", "3"),
        ('"True"', "True"),
        ('"os.path"', "os.path"),
        ("\"'x'\"", "'x'"),
        ('""x""', '"x"'),
        ('""', ""),
        ('"', '"'),
        ('"a', '"a'),
        ("\"a'", "\"a'"),
        ('"__delete_field__"', "__delete_field__"),
        ('"json:1"', "json:1"),
        # words
        ("True", True),
        ("False", False),
        ("None", None),
        ("true", "true"),
        ("{}", {}),
        ("[]", []),
        # numbers
        ("3", 3),
        ("-1", -1),
        ("+7", 7),
        ("-1e-3", -1e-3),
        ("1e-5", 1e-5),
        ("0.0", 0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        # objects
        ("os.path.join", os.path.join),
        ("import:json", json),
        ("import:json.loads", json.loads),
        ("json.loads", json.loads),
        ("callable:sum", sum),
        ("callable:int", int),
        # json
        ("json:1.5", 1.5),
        ('json:{"a": 1.5, "b": ["x.y", null, true]}', {"a": 1.5, "b": ["x.y", None, True]}),
        ('json:[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('json:"3"', "3"),
        # plain text
        ("gpt2", "gpt2"),
        ("", ""),
        (" ", " "),
        ("-x", "-x"),
        ("data/train.txt.gz", "data/train.txt.gz"),
        ("./x.py", "./x.py"),
        ("{", "{"),
    ],
)
def test_one_text_is_one_value(text: str, value: Any) -> None:
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(read_value("nan"))


def test_delete_field_is_told_from_its_text() -> None:
    assert read_value("__delete_field__") is DELETE_FIELD
    assert repr(DELETE_FIELD) == "__delete_field__"


def test_an_existing_file_is_not_imported(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "os.path").touch()
    assert read_value("os.path") == "os.path"


def test_a_text_too_long_for_a_file_name_is_no_crash() -> None:
    with pytest.raises(UserError, match="cannot be imported"):
        read_value("x." * 5000)
    with pytest.raises(UserError, match="cannot be imported"):
        read_value("a.\0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("callable:smu", "callable:smu is not a Python builtin. Did you mean callable:sum?"),
        (
            "callable:os.path.join",
            "callable:os.path.join is not a Python builtin.",
        ),
        (
            'json:{"a": }',
            "what follows json: is not valid JSON: Expecting value at character 7.",
        ),
        (
            "os.path.joyn",
            "'os.path.joyn' cannot be imported: os.path has no 'joyn'. Did you mean os.path.join? "
            "If the text itself is meant, put quotes around it: '\"os.path.joyn\"'.",
        ),
        (
            "Hello. It is me.",
            "'Hello. It is me.' cannot be imported: it is not a name that Python could import. "
            "If the text itself is meant, put quotes around it: '\"Hello. It is me.\"'.",
        ),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_value(text)
    assert caught.value.problems == (message,)


def test_imports_can_be_put_off() -> None:
    assert read_value("optuna.samplers.X", Reference) == Reference("optuna.samplers.X")
    assert read_value("import:optuna", Reference) == Reference("optuna")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1234", "1234"),
        ("1e5", "1e5"),
        ("data.v2.txt", "data.v2.txt"),
        ("import:json", "import:json"),
        ("callable:sum", "callable:sum"),
        ("{}", "{}"),
        ('"1234"', "1234"),
        ('"None"', "None"),
        ('json:["a.b"]', ["a.b"]),
        ("", ""),
        ("None", "None"),
        ("True", "True"),
        ("[]", "[]"),
    ],
)
def test_declared_text_stays_as_it_stands(text: str, value: Any) -> None:
    assert read_text(text, allows_none=False, allows_bool=False, is_list=False) == value


def test_declared_text_may_allow_more() -> None:
    assert read_text("None", allows_none=True, allows_bool=False, is_list=False) is None
    assert read_text("True", allows_none=False, allows_bool=True, is_list=False) is True
    assert read_text("[]", allows_none=False, allows_bool=False, is_list=True) == []


@given(TEXTS)
def test_a_written_text_reads_back(text: str) -> None:
    assert read_value(write_value(text)) == text
    written = write_value(text, is_text=True)
    for allows in (False, True):
        assert read_text(written, allows_none=allows, allows_bool=allows, is_list=allows) == text


def test_other_types_are_written_as_plain_ones(tmp_path: Any) -> None:
    import numpy as np

    class Word(str):
        __slots__ = ()

    assert write_value({"a": (1, {2})}) == {"a": [1, [2]]}
    assert write_value(tmp_path) == str(tmp_path) if "." not in str(tmp_path) else True
    for value, plain in [(np.int64(3), int), (np.float64(0.5), float), (Word("x"), str)]:
        assert type(write_value(value)) is plain
