"""The processes in which tests try command lines are like those that a user starts."""

from __future__ import annotations

import json
import os
import signal
import textwrap

import pytest

from commands import Command, run_command, run_new_process

# A modifier of models that tells what the process is like, and then ends it in some way.
ODD = """
import atexit, json, os, random, signal, sys
import numpy

def tell(model, tokenizer, end):
    print(json.dumps({
        "argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "path": sys.path,
        "cwd": os.getcwd(),
        "environment": {key: os.environ.get(key) for key in ("ODD", "HOME", "PYTHONPATH")},
        "main": sys.modules["__main__"].__spec__.name,
        "streams": [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "buffered": [stream.line_buffering for stream in (sys.stdout, sys.stderr)],
        "read": sys.stdin.read(),
        "terminal": sys.stdin.isatty(),
        "handlers": [str(signal.getsignal(number)) for number in (
            signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)],
    }, sort_keys=True))
    atexit.register(print, "the end")
    if end == "exit":
        sys.exit(7)
    if end == "error":
        raise ZeroDivisionError
    if end == "system":
        raise BaseException("not an Exception")
    os.kill(os.getpid(), getattr(signal, end))
"""


@pytest.fixture
def odd(tmp_path):
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD))
    (tmp_path / "x.txt").write_text("The women drank.\n")
    return [
        *("--model_name_or_path", "tiny-lm", "--test_file", "x.txt"),
        *("--model_modifier_fns", "odd.tell", "--model_modifier_fn_kwargs.tell.end"),
    ]


def test_a_command_is_what_a_new_process_is(tmp_path, odd, monkeypatch):
    monkeypatch.setenv("ODD", "yes")
    forked, new = (
        command(*odd, "exit", cwd=tmp_path, input="typed\n")
        for command in (run_command, run_new_process)
    )
    told, said = (forked.stdout.splitlines() for forked in (forked, new))
    assert json.loads(told[0]) == json.loads(said[0])
    assert json.loads(told[0])["environment"]["ODD"] == "yes"
    assert json.loads(told[0])["read"] == "typed\n"
    assert told[1:] == said[1:] == ["the end"]
    assert forked.returncode == new.returncode != 0
    assert forked.stderr == new.stderr


@pytest.mark.parametrize(
    ("end", "status", "last_words"),
    [
        ("error", 1, "ZeroDivisionError"),
        ("system", 1, "BaseException: not an Exception"),
        ("SIGKILL", -signal.SIGKILL, ""),
        ("SIGALRM", -signal.SIGALRM, ""),
    ],
)
def test_a_command_ends_as_a_process_does(tmp_path, odd, end, status, last_words):
    done = run_command(*odd, end, cwd=tmp_path)
    assert done.returncode == status
    assert ["", *done.stderr.splitlines()][-1].strip() == last_words
    assert done.stdout.endswith("the end\n") == (status > 0)


def test_streams_and_random_numbers_are_a_commands_own(tmp_path):
    (tmp_path / "draw.py").write_text(
        "import random, sys, numpy, uuid\n"
        "def draw(model, tokenizer):\n"
        "    raise OSError(f'{random.random()} {numpy.random.random()} {sys.stdin.read()!r}')\n"
    )
    (tmp_path / "x.txt").write_text("The women drank.\n")
    argv = [
        *("--model_name_or_path", "tiny-lm", "--test_file", "x.txt"),
        *("--model_modifier_fns", "draw.draw"),
    ]
    drawn = []
    for _ in range(2):
        command = Command(*argv, cwd=tmp_path, merged=True)
        said, nothing = command.communicate()
        assert command.returncode == command.poll() != 0
        assert nothing == ""
        *numbers, read = said.split()[-3:]
        assert read == "''"
        drawn += numbers
    assert len(set(drawn)) == 4


def test_a_command_that_goes_on_can_be_killed(tmp_path):
    (tmp_path / "wait.py").write_text(
        "import pathlib, time\n"
        "def wait(model, tokenizer):\n"
        "    pathlib.Path('there').touch()\n"
        "    time.sleep(1000)\n"
    )
    (tmp_path / "x.txt").write_text("The women drank.\n")
    argv = ["--model_name_or_path", "tiny-lm", "--test_file", "x.txt"]
    command = Command(*argv, "--model_modifier_fns", "wait.wait", cwd=tmp_path)
    while not (tmp_path / "there").exists():
        assert command.poll() is None, command.communicate()
    assert command.returncode is None
    os.kill(command.pid, 0)
    command.kill()
    assert command.wait() == -signal.SIGKILL
    command.kill()  # of no use, and no error
    assert command.communicate() == ("", command.communicate()[1])
