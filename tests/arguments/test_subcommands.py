from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

import pytest

from finetune_lm.arguments import subcommands
from finetune_lm.arguments.subcommands import SUBCOMMANDS, Subcommand, SubcommandParser
from finetune_lm.cli import main
from finetune_lm.errors import UserError


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """A command `count FILE [--times N]`, and what it was asked to do."""
    done: list[argparse.Namespace] = []
    module = types.ModuleType("counting_module")

    def parser() -> SubcommandParser:
        made = SubcommandParser("count", "Count what is there.")
        made.add_argument("file", help="What to count.")
        made.add_argument("--times", type=int, default=1, help="How often.")
        return made

    def do(args: argparse.Namespace) -> str:
        done.append(args)
        if args.file == "wrong":
            raise UserError("there is no file wrong.")
        return f"{args.times} {args.file}\n"

    vars(module).update(parser=parser, do=do)
    monkeypatch.setitem(sys.modules, "counting_module", module)
    monkeypatch.setitem(SUBCOMMANDS, "count", Subcommand("counting_module", "Count things."))
    return done


def test_a_first_word_without_dashes_is_a_command(
    counting: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", "a.txt", "--times", "3"]) == 0
    assert capsys.readouterr().out == "3 a.txt\n"
    assert [(args.file, args.times, args.debug) for args in counting] == [("a.txt", 3, False)]


def test_its_help_is_shown_whatever_else_is_said(
    counting: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--help"], ["-h"], ["a", "--times", "x", "--help"]):
        assert main(["count", *words]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("usage: finetune-lm count")
        assert "How often." in shown
    assert not counting
    assert main(["--help"]) == 0
    assert "  count\n      Count things.\n" in capsys.readouterr().out


def test_mistakes_are_told_in_a_line(
    counting: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("count",): "the following arguments are required: file.",
        ("count", "a", "--times", "x"): "argument --times: invalid int value: 'x'.",
        (
            "count",
            "a",
            "--tims",
            "--more",
        ): "count: --tims is not an argument. Did you mean --times",
        ("count", "wrong"): "there is no file wrong.",
        ("cuont", "a"): "'cuont' has no name before it",
        ("count", "\udcff"): "must be UTF-8",
    }
    for words, told in cases.items():
        assert main(list(words)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert told in captured.err
        assert "Traceback" not in captured.err
    assert main(["cuont", "a"]) == 2
    assert "Did you mean count?" in capsys.readouterr().err
    assert main(["count", "wrong", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_every_command_has_its_help_and_is_in_the_docs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    docs = (Path(subcommands.__file__).parents[3] / "docs" / "command_line.md").read_text("utf-8")
    for name, each in SUBCOMMANDS.items():
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"usage: finetune-lm {name}")
        assert each.summary.endswith(".")
        assert f"finetune-lm {name} " in docs
