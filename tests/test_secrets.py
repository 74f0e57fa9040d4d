"""No token and no password is shown: not in a file, a line of the terminal, an error or a repr."""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from pathlib import Path

import pytest

from commands import run_command
from finetune_lm import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    UserError,
    run,
)
from finetune_lm.arguments import config_text, config_yaml, without_token
from finetune_lm.arguments.redaction import hides_secrets, secrets_of, without_secrets
from finetune_lm.cli import main
from finetune_lm.messages import warn
from helpers import write_lines

SECRET = "hf_sesame"  # in no other word
URL = f"postgresql://me:{SECRET}@host:5432/db"
# What a user may write in front of a secret, on the command line and in Python.
GIVEN = {
    "token": ["--token", SECRET],
    "a file with the token": ["--token", "token_file"],
    "model_kwargs.token": ["--model_kwargs.token", SECRET],
    "tokenizer_kwargs.token": ["--tokenizer_kwargs.token", SECRET],
    "config_kwargs.token": ["--config_kwargs.token", SECRET],
    "JSON": ["--model_kwargs", f'json:{{"token": "{SECRET}"}}'],
    "a config file": ["--config", "secret.yaml"],
    "a storage": ["--study_kwargs.storage", URL],
    "a password of its own": [
        "--study_kwargs.storage_kwargs.password", SECRET,
        "--study_kwargs.storage_kwargs.Api-Key", SECRET,
        "--study_kwargs.storage_kwargs.deeper.passwd", SECRET,
        "--study_kwargs.storage_kwargs.url", f"postgresql://host/db?user=me&password={SECRET}",
    ],
    "the environment": [],
}  # fmt: skip
CLASSES = """
class Leaks:
    def __init__(self, model, tokenizer, **kwargs):
        pass

    def __call__(self, outputs, labels):
        raise LookupError(message())


def refuses(model, tokenizer):
    from finetune_lm import UserError

    raise UserError(message())


def message():
    secret = open("token_file").read().strip()
    return f"401 for {secret}: postgresql://me:{secret}@host:5432/db"
"""


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    directory = tmp_path / "work"
    directory.mkdir()
    gc.collect()  # what earlier tests left, with its secrets
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(str(directory))
    monkeypatch.delitem(sys.modules, "leaky", raising=False)
    (directory / "leaky.py").write_text(CLASSES)
    (directory / "token_file").write_text(f" {SECRET}\n")
    (directory / "secret.yaml").write_text(
        f"model_kwargs: {{token: {SECRET}}}\nstudy_kwargs: {{storage: '{URL}'}}\n"
    )
    write_lines(directory / "x.txt.gz", ["The man drank.", "The women drank the tea."])


@pytest.fixture(params=GIVEN)
def given(request, monkeypatch):
    if request.param == "the environment":
        monkeypatch.setenv("HF_TOKEN", SECRET)
    return GIVEN[request.param]


TRAIN = [
    *("--model_name_or_path", "tiny-lm", "--train_file", "x.txt.gz", "--epochs", "1"),
    *("--validation_file", "x.txt.gz", "--test_file", "x.txt.gz", "--output_dir", "out"),
]


def files_with_secret(directory):
    """The files under a directory that have the secret in them, also where they are gzipped."""
    import gzip

    found = []
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        if SECRET.encode() in content or SECRET in path.name:
            found.append(str(path))
    return found


def assert_hidden(captured, status, expected):
    assert status == expected, captured.err
    assert SECRET not in captured.out
    assert SECRET not in captured.err
    if Path("out").exists():
        assert files_with_secret(Path("out")) == []
    assert files_with_secret(Path(os.environ["HF_HOME"])) == []


def test_a_run_that_succeeds(given, capfd):
    status = main([*TRAIN, *given])
    assert_hidden(capfd.readouterr(), status, 0)
    assert {path.name for path in Path("out").iterdir()} >= {
        "config.txt", "config.yaml", "run.json", "metrics.csv.gz", "model", "tokenizer",
    }  # fmt: skip


def test_a_run_that_only_prints(given, capfd):
    status = main([*TRAIN, *given, "--print_config"])
    assert_hidden(capfd.readouterr(), status, 0)
    status = main([*TRAIN, *given, "--preview", "1"])
    assert_hidden(capfd.readouterr(), status, 0)


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_a_mistake_of_the_users(given, debug, capfd):
    """Found while the arguments are read, before a model is loaded, and after."""
    for wrong in (
        ["--epoch", "1"],
        ["--model_name_or_path", "./nothing"],
        ["--model_modifier_fns", "leaky.refuses"],
    ):
        argv = [*TRAIN, *given, *debug]
        if wrong[0] in argv:
            argv[argv.index(wrong[0]) + 1] = wrong[1]
        else:
            argv += wrong
        status = main(argv)
        captured = capfd.readouterr()
        assert_hidden(captured, status, 2)
        assert ("Traceback" in captured.err) == bool(debug)
    assert "401 for <token>: postgresql://me@host:5432/db" in captured.err


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_a_crash(given, debug, capfd):
    status = main([*TRAIN, *given, *debug, "--loss_classes.train", "leaky.Leaks"])
    captured = capfd.readouterr()
    assert_hidden(captured, status, 1)
    assert "LookupError: 401 for <token>: postgresql://me@host:5432/db" in captured.err
    assert "leaky.py" in captured.err  # where it happened is told
    record = json.loads(Path("out/run.json").read_text())
    assert record["state"] == "failed"
    assert record["error"] == "LookupError: 401 for <token>: postgresql://me@host:5432/db"


def test_a_crash_in_a_process_of_its_own(tmp_path):
    """Also what Python says when nobody catches an exception."""
    result = run_command(
        *(*TRAIN, "--token", SECRET, "--debug", "--loss_classes.train", "leaky.Leaks"),
        cwd=tmp_path / "work",
    )
    assert result.returncode == 1
    assert SECRET not in result.stdout + result.stderr
    assert "LookupError: 401 for <token>" in result.stderr
    assert files_with_secret(tmp_path / "work" / "out") == []


def test_an_exception_in_python():
    import leaky

    data = DataTrainingArguments(
        train_file="x.txt.gz", validation_file="x.txt.gz", epochs=1, output_dir="out",
        loss_classes={"train": [leaky.Leaks]},
        loss_classes_kwargs={"train": {"Leaks": {"model_kwargs": {"token": SECRET}}}},
    )  # fmt: skip
    with pytest.raises(LookupError) as caught:
        run(ModelArguments("tiny-lm"), data)
    shown = "".join(traceback.format_exception(caught.value))
    assert "401 for <token>: postgresql://me@host:5432/db" in shown
    assert files_with_secret(Path("out")) == []


def test_a_users_mistake_in_python():
    import leaky

    data = DataTrainingArguments(test_file="x.txt.gz", output_dir="out")
    model = ModelArguments("tiny-lm", model_modifier_fns=[leaky.refuses], token=SECRET)
    with pytest.raises(UserError) as caught:
        run(model, data)
    assert caught.value.problems == ("401 for <token>: postgresql://me@host:5432/db",)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_the_whole_chain_of_causes_is_cleaned():
    class RemadeError(Exception):
        """Makes its message anew each time."""

        def __str__(self):
            return f"remade {SECRET}"

    @hides_secrets
    def fail(model, kind):
        try:
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise OSError(13, f"no {SECRET}", f"/{SECRET}/x") from error
        except OSError as error:
            note = ValueError("outer", SECRET, 3)
            note.add_note(f"seen with {SECRET}")
            raise kind(note) from error

    def wrapped(error):
        return error

    model = ModelArguments("tiny-lm", token=SECRET)
    with pytest.raises(ValueError, match="outer") as caught:
        fail(model, wrapped)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert "no <token>: '/<token>/x'" in shown
    assert caught.value.args == ("outer", "<token>", 3)
    with pytest.raises(RuntimeError, match="RemadeError: remade <token>") as caught:
        fail(model, RemadeError)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_repr_shows_one():
    nested = {"a": [{"token": SECRET, "x": 1}], "url": URL}
    for arguments in (
        ModelArguments("m", token=SECRET, model_kwargs=nested, config_kwargs=nested),
        DataTrainingArguments(
            test_file="x",
            loss_classes_kwargs={"train": {"OutputsDefaultLoss": {"model_kwargs": nested}}},
        ),
        OptimizationArguments(study_kwargs={"storage": URL, "storage_kwargs": nested}),
    ):
        assert SECRET not in repr(arguments)
        assert SECRET not in str(arguments)


def test_what_a_written_configuration_has_instead():
    optimization = OptimizationArguments(study_kwargs={"storage": URL, "password": SECRET})
    everything = (ModelArguments("m", token=SECRET), DataTrainingArguments(test_file="x"))
    for text in (config_yaml(*everything, optimization), config_text(*everything, optimization)):
        assert SECRET not in text
        assert "storage: " in text
        assert "postgresql://me@host:5432/db" in text
        assert "password" not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (URL, "postgresql://me@host:5432/db"),
        ("mysql+pymysql://me:a:b@c/d@host/db", "mysql+pymysql://me@host/db"),
        ("redis://:secret@host", "redis://host"),
        ("https://hf_x@huggingface.co/a", "https://huggingface.co/a"),
        ("https://me:secret@host/a", "https://host/a"),
        ("see postgresql://me:secret@host/db.", "see postgresql://me@host/db."),
        ("postgresql://host/db?user=me&password=secret&x=1",
         "postgresql://host/db?user=me&password=&x=1"),
        ("host=h user=me password=secret", "host=h user=me password="),
        (f"x hf_{'a1B2' * 9} y", "x <token> y"),
        # What is no secret stays.
        ("sqlite:///studies/a.db", "sqlite:///studies/a.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("https://host/a@b:c", "https://host/a@b:c"),
        ("me@host.org: hf_model, token=x", "me@host.org: hf_model, token=x"),
    ],
)  # fmt: skip
def test_secrets_are_known_by_their_form(text, left):
    assert without_secrets({"a": [text]}) == {"a": [left]}
    assert without_token(text, None) == left


def test_secrets_that_are_known(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("hf_stored\n")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    model = ModelArguments("m", token="token_file", model_kwargs={"a": [{"token": "hf_nested"}]})
    assert set(secrets_of(model, {"x": {"password": "p"}}, None)) == {
        SECRET, "hf_stored", "hf_environment", "hf_nested", "p",
    }  # fmt: skip
    # The longest first, so that none is left in half.
    assert without_token("hf_a hf_ab", {"token": "hf_a"}, {"password": "hf_ab"}) == (
        "<token> <token>"
    )


def test_secrets_of_all_arguments_are_known_while_they_are_there(capsys):
    """Where something is said nobody needs to know which arguments may hold some."""
    data = DataTrainingArguments(
        test_file="x", loss_classes_kwargs={"train": {"OutputsDefaultLoss": {"token": SECRET}}}
    )
    warn(f"401 for {SECRET}")
    assert capsys.readouterr().err == "warning: 401 for <token>\n"
    assert without_token(SECRET) == "<token>"
    del data
    assert without_token(SECRET) == SECRET


def test_no_secret_is_nothing_to_hide():
    assert secrets_of(ModelArguments("m"), ModelArguments("m", token=True)) == []
    assert secrets_of(ModelArguments("m", token="")) == []
    assert without_token("as it was", ModelArguments("m", token=None)) == "as it was"


def test_a_token_is_still_used(monkeypatch):
    """Hidden everywhere, and given to the library that needs it."""
    import transformers

    seen = []

    def from_pretrained(name, **kwargs):
        seen.append(kwargs["token"])
        raise OSError(f"401 for {kwargs['token']}")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", from_pretrained)
    with pytest.raises(UserError) as caught:
        run(
            ModelArguments("org/private", token=SECRET), DataTrainingArguments(test_file="x.txt.gz")
        )
    assert seen == [SECRET]
    assert caught.value.problems == (
        "model_name_or_path 'org/private' is no directory here, and cannot be loaded as "
        "configuration: 401 for <token>",
    )
    assert SECRET not in "".join(traceback.format_exception(caught.value))
