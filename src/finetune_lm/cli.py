"""The command `finetune-lm`: argv -> a run, or what a command does; no traceback for a mistake."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_lm.arguments import (
    USAGE,
    ParsedArguments,
    config_yaml,
    parse_arguments,
    without_token,
)
from finetune_lm.arguments.command_line import check_words, names_given
from finetune_lm.arguments.subcommands import SUBCOMMANDS, asks_for_help
from finetune_lm.errors import UserError, raised_in
from finetune_lm.launching import launched, launcher
from finetune_lm.messages import say
from finetune_lm.ranks import world
from finetune_lm.runs.interruption import signals_remembered
from finetune_lm.runs.requeueing import IN_VAIN, begin_session, is_in_vain, leave_status
from finetune_lm.several_ranks import joined
from finetune_lm.streams import (
    BROKEN,
    fill_closed_descriptors,
    forget_what_is_lost,
    lossy,
    lossy_streams,
)

SUCCESS = 0
FAILURE = 1
USER_ERROR = 2
MOST_PROBLEMS = 50
"""That are told one by one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line asks for.

    Args:
        argv: The command line without the program's own name. By default that of this process.

    Returns:
        The exit status: 0, 2 after a mistake that the user can put right, 1 after any other, 128
        and the signal after Ctrl-C, SIGTERM or the like.
    """
    fill_closed_descriptors()
    with lossy_streams("stdout", "stderr"):
        try:
            status = _main(sys.argv[1:] if argv is None else list(argv))
            leave_status(status)
            return status
        finally:
            forget_what_is_lost()


def _main(argv: list[str]) -> int:
    if not argv:
        if launched()[0] == 0:
            sys.stderr.write(f"{USAGE}\nfinetune-lm --help shows all arguments.\n")
        return USER_ERROR
    parsed: ParsedArguments | None = None
    begin_session()
    try:
        with signals_remembered(), joined():
            if argv[0] in SUBCOMMANDS:
                _do_subcommand(argv[0], argv[1:])
            else:
                parsed = parse_arguments(argv)
                _do(parsed)
    except UserError as error:
        if _is_told(error):
            return error.exit_status
        wants_traceback = parsed.debug if parsed is not None else "--debug" in argv
        lines = [f"finetune-lm: error: {problem}" for problem in error.problems[:MOST_PROBLEMS]]
        if len(error.problems) > MOST_PROBLEMS:
            lines.append(f"finetune-lm: and {len(error.problems) - MOST_PROBLEMS} more errors.")
        if wants_traceback:
            lines.insert(0, traceback.format_exc())
        sys.stderr.write(without_token("\n".join(lines), *_holders(argv, parsed)) + "\n")
        return error.exit_status
    except Exception as error:
        # A mistake in the program, or in what it was given to run. Python's own way of telling
        # would show what a library has put into its message.
        if _is_told(error):
            return FAILURE
        told = traceback.format_exc()
        if name := raised_in(error):
            told = f"finetune-lm: error: {name} raised {type(error).__name__}.\n{told}"
        sys.stderr.write(without_token(told, *_holders(argv, parsed)))
        return FAILURE
    except SystemExit as error:
        sys.stderr.write(
            f"finetune-lm: error: something called sys.exit({error.code!r}) before the end.\n"
        )
        return FAILURE
    except KeyboardInterrupt as interrupt:
        if not _is_told(interrupt):
            sys.stderr.write(_told(interrupt, parsed))
        if is_in_vain(interrupt):
            sys.stderr.write(f"finetune-lm: error: {IN_VAIN} It is not queued again.\n")
            return FAILURE
        # As shells have it: 128 and the signal. Ctrl-C outside of a run is SIGINT, which is 2.
        return 128 + getattr(interrupt, "signal_number", 2)
    return SUCCESS


def _is_told(error: BaseException) -> bool:
    """Whether another of the processes that make a run together tells the user."""
    return bool(getattr(error, "is_told", False))


def _holders(argv: Sequence[str], parsed: ParsedArguments | None) -> list[Any]:
    """What may hold secrets: the arguments, or the command line that could not be read."""
    if parsed is not None:
        return [parsed.model, parsed.data, parsed.optimization]
    return [{each.path[-1]: list(each.texts)} for each in names_given(argv, [])]


def _do(parsed: ParsedArguments) -> None:
    if parsed.help is not None:
        _print(parsed.help)
        return
    if parsed.version:
        from importlib.metadata import version

        _print(f"finetune-lm {version('finetune-lm')}\n")
        return
    model, data, optimization = parsed.model, parsed.data, parsed.optimization
    # Without help or version there are arguments: parse_arguments raises where they are wrong.
    assert model is not None
    assert data is not None
    assert optimization is not None
    if parsed.print_config:
        _print(config_yaml(model, data, optimization))
        return
    if parsed.preview is not None:
        from finetune_lm.runs.preparing import preview
        from finetune_lm.series.members import is_series, members_of

        if world().is_first and is_series(model):
            model = members_of(model)[0].args
        _print(preview(model, data, parsed.preview))
        return
    if parsed.resume is not None:
        from finetune_lm import resuming

        result = resuming.resume(parsed.resume, model, data, optimization)
    else:
        from finetune_lm import experiment

        result = experiment.run(model, data, optimization)
    say(f"Results are in {result.output_dir}")


def _do_subcommand(name: str, words: list[str]) -> None:
    check_words(words)
    module = SUBCOMMANDS[name].load()
    parser = module.parser()
    if asks_for_help(words):
        _print(parser.format_help())
    elif not world().is_first and not SUBCOMMANDS[name].makes_runs:
        return
    elif text := module.do(parser.read(words)):
        _print(text)


def _print(text: str) -> None:
    """Print what was asked for, once.

    Raises:
        UserError: If it does not arrive.
    """
    if not world().is_first:
        return
    try:
        lossy(sys.stdout).deliver(text)
    except UnicodeEncodeError as error:
        raise UserError(
            f"stdout must take every character but is in {sys.stdout.encoding}. Set "
            f"PYTHONIOENCODING=utf-8."
        ) from error
    except BROKEN as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"stdout cannot be written to: {reason}.") from error


def _told(interrupt: KeyboardInterrupt, parsed: ParsedArguments | None) -> str:
    """What is said after a signal: how to go on, where that is possible."""
    output_dir = getattr(interrupt, "output_dir", None)
    if parsed is not None and parsed.optimization and parsed.optimization.do_optimize:
        return "finetune-lm: interrupted. Finished trials are kept.\n"
    if output_dir is None:
        return "finetune-lm: interrupted.\n"
    is_module = Path(sys.argv[0]).name == "__main__.py"
    program = launcher() or ("python -m finetune_lm" if is_module else "finetune-lm")
    token = " --token ..." if parsed and parsed.model and parsed.model.token else ""
    return (
        f"finetune-lm: interrupted by {interrupt}. What was measured is kept. To "
        f"resume:\n{program} --resume {shlex.quote(str(output_dir))}{token}\n"
    )
